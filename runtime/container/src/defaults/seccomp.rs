//! Docker's default policy of system calls, as a table.
//!
//! What is not named is refused with `EPERM`. Named are the calls that programs need and that act
//! only on what the caller's namespaces and capabilities reach; calls that a capability guards are
//! named where the container holds it. Left out on purpose, whatever is held: `io_uring_*` (its
//! operations bypass any filter), `keyctl` and its family (keys are not in namespaces),
//! `userfaultfd`, `kexec_*`, `nfsservctl` and other old interfaces.

use libc::c_int;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

/// For every container. Names of other architectures and newer kernels are passed over.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep _newselect newfstatat
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall
    riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
    utimes vfork vmsplice wait4 waitid waitpid write writev";

/// With a capability.
const GUARDED: [(Capability, &str); 14] = [
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "delete_module init_module finit_module",
    ),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "iopl ioperm"),
    (
        Capability::SysTime,
        "settimeofday stime clock_settime clock_settime64",
    ),
    (Capability::SysTtyConfig, "vhangup"),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Where the machine has them.
fn of_architecture(native: Arch) -> &'static str {
    match native {
        Arch::ScmpArchX86_64 | Arch::ScmpArchX32 => "arch_prctl modify_ldt",
        Arch::ScmpArchX86 => "modify_ldt",
        Arch::ScmpArchArm | Arch::ScmpArchAarch64 => {
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
        }
        Arch::ScmpArchPpc64le => "sync_file_range2 swapcontext",
        Arch::ScmpArchS390 | Arch::ScmpArchS390x => {
            "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"
        }
        Arch::ScmpArchRiscv64 => "riscv_flush_icache",
        _ => "",
    }
}

/// What programs of the machine may run: its own and those of its 32-bit modes.
fn architectures(native: Arch) -> Vec<Arch> {
    let others: &[Arch] = match native {
        Arch::ScmpArchX86_64 => &[Arch::ScmpArchX86, Arch::ScmpArchX32],
        Arch::ScmpArchAarch64 => &[Arch::ScmpArchArm],
        Arch::ScmpArchMips64 => &[Arch::ScmpArchMips, Arch::ScmpArchMips64n32],
        Arch::ScmpArchMips64n32 => &[Arch::ScmpArchMips, Arch::ScmpArchMips64],
        Arch::ScmpArchMipsel64 => &[Arch::ScmpArchMipsel, Arch::ScmpArchMipsel64n32],
        Arch::ScmpArchMipsel64n32 => &[Arch::ScmpArchMipsel, Arch::ScmpArchMipsel64],
        Arch::ScmpArchS390x => &[Arch::ScmpArchS390],
        _ => &[],
    };
    [&[native], others].concat()
}

/// `personality(2)`: Linux, 32-bit Linux, either with `UNAME26`, and "which is it?".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Below this all families of `socket(2)` are allowed.
const FAMILIES_BELOW: c_int = libc::AF_DECnet;

/// The families above that are allowed, by number (`linux/socket.h`). Left out are families that
/// the kernel has dropped (DECnet, Econet, ATM SVC, IrDA, Wanpipe, ISDN, CAIF), `AF_ALG` (the
/// kernel's cryptography: much code, little use) and `AF_VSOCK` (reaches the machine's host past
/// all network namespaces). A list of what is allowed, since a value with bits above the 32 that
/// the kernel looks at would slip past a comparison with one that is forbidden.
const FAMILIES: [c_int; 25] = [
    libc::AF_NETBEUI,
    libc::AF_SECURITY,
    libc::AF_KEY,
    libc::AF_NETLINK,
    libc::AF_PACKET,
    libc::AF_ASH,
    libc::AF_RDS,
    libc::AF_SNA,
    libc::AF_PPPOX,
    libc::AF_LLC,
    libc::AF_IB,
    libc::AF_MPLS,
    libc::AF_CAN,
    libc::AF_TIPC,
    libc::AF_BLUETOOTH,
    libc::AF_IUCV,
    libc::AF_RXRPC,
    libc::AF_PHONET,
    libc::AF_IEEE802154,
    libc::AF_NFC,
    41, // AF_KCM
    42, // AF_QIPCRTR
    43, // AF_SMC
    libc::AF_XDP,
    45, // AF_MCTP
];

/// Every kind of namespace that `clone(2)` can make (that of time is `unshare`'s and `clone3`'s).
const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// Docker's default policy for a container that holds these capabilities, on this machine.
///
/// A 32-bit program of x86 may also open sockets through `socketcall(2)`, whose arguments are in
/// memory, out of a filter's sight: there the restriction of families does not hold.
pub fn seccomp(capabilities: &Capabilities) -> LinuxSeccomp {
    use LinuxSeccompOperator as Op;
    let native = crate::seccomp::native_arch();
    let mut names: Vec<&str> = ALWAYS.split_ascii_whitespace().collect();
    names.extend(of_architecture(native).split_ascii_whitespace());
    for (_, calls) in GUARDED.iter().filter(|(c, _)| capabilities.contains(c)) {
        names.extend(calls.split_ascii_whitespace());
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![allow(&names, vec![])];
    rules.push(allow(
        &["socket"],
        vec![arg(0, Op::ScmpCmpLt, FAMILIES_BELOW as u64)],
    ));
    // Conditions on one argument stand each for itself.
    let families = FAMILIES.map(|family| arg(0, Op::ScmpCmpEq, family as u64));
    rules.push(allow(&["socket"], families.into()));
    let personalities = PERSONALITIES.map(|value| arg(0, Op::ScmpCmpEq, value));
    rules.push(allow(&["personality"], personalities.into()));
    if !capabilities.contains(&Capability::SysAdmin) {
        // Namespaces make privileged code reachable for who is not. The flags are the second
        // argument on s390.
        let index = match native {
            Arch::ScmpArchS390 | Arch::ScmpArchS390x => 1,
            _ => 0,
        };
        let flags = arg(index, Op::ScmpCmpMaskedEq, NAMESPACES as u64);
        rules.push(allow(&["clone"], vec![flags]));
        // Its flags are in memory, out of a filter's sight; on this answer the C library falls
        // back to clone.
        let mut clone3 = rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, vec![]);
        clone3.set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(clone3);
    }
    let mut policy = LinuxSeccomp::default();
    policy
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures(native)))
        .set_syscalls(Some(rules));
    policy
}

fn allow(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, args)
}

fn rule(names: &[&str], action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|name| (*name).to_string()).collect())
        .set_action(action)
        .set_args(Some(args).filter(|args| !args.is_empty()));
    rule
}

/// A comparison with `value`; for `SCMP_CMP_MASKED_EQ` the bits that must be clear.
fn arg(index: usize, op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default();
    // Every part has a default, so this cannot fail.
    let arg = arg.index(index).op(op).value(value).build();
    arg.unwrap_or_default()
}
