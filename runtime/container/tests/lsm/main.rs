//! Labels of security modules, where the kernel has them. In the virtual machine one of them is always active.

mod apparmor;
#[path = "../common/mod.rs"]
mod common;
mod selinux;
