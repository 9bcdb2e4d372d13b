//! The first instructions of the process, before those of the C library.
//!
//! What makes containers has to execute itself once more ([`container::protect`]). Done here, the
//! first of the two starts costs next to nothing: no address has been relocated yet, hardly a page
//! of the file touched. It is a short cut and no more: when anything is unusual or fails, the process
//! goes on as any other, and `protect` does what is to be done or says why it cannot. That one also
//! looks whether what was done here holds, and does not have to trust it.
//!
//! A start that goes on asks for its own copies of the pages that are about to be written to, by
//! relocation above all: in one call, rather than by a page fault each.
//!
//! The build script tells the linker of this entry, for the one architecture that has it. It is
//! written in assembly since nothing works yet that compiled code may need: no address is relocated,
//! so that no function outside can be called and no table be read, and there are no thread-local
//! variables.

use std::arch::global_asm;

global_asm!(
    ".pushsection .rodata.fairlead_entry, \"a\", @progbits",
    ".Lfairlead_executable: .asciz \"/proc/self/exe\"",
    ".Lfairlead_nothing: .byte 0",
    ".balign 8",
    // `struct mount_attr`: read-only, and nothing else changed.
    ".Lfairlead_read_only: .quad {rdonly}, 0, 0, 0",
    ".popsection",
    //
    ".pushsection .text.fairlead_entry, \"ax\", @progbits",
    ".globl fairlead_entry",
    ".type fairlead_entry, @function",
    "fairlead_entry:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    // As the kernel leaves it, the stack has the number of arguments, pointers to them, a null
    // pointer, and the environment that ends with one. rdx is for the C library. A system call
    // changes rax, rcx and r11.
    "mov r12, rsp",
    "mov r13, rdx",
    "lea r14, [rsp + 8]",
    "mov rax, [rsp]",
    "lea r15, [r14 + rax * 8 + 8]",
    "sub rsp, 64",
    //
    // Is one of the arguments a command that makes containers? As `main` asks. Behind the strings
    // there are eight bytes of zero, so four can be read at the beginning of each.
    "mov rbx, r14",
    "2:",
    "mov rsi, [rbx]",
    "add rbx, 8",
    "test rsi, rsi",
    "jz 8f",
    "mov eax, [rsi]",
    "cmp eax, 0x006e7572", // "run\0"
    "je 4f",
    "cmp eax, 0x63657865", // "exec"
    "je 3f",
    "cmp eax, 0x61657263", // "crea"
    "jne 2b",
    "cmp dword ptr [rsi + 3], 0x00657461", // "ate\0"
    "je 4f",
    "jmp 2b",
    "3:",
    "cmp byte ptr [rsi + 4], 0",
    "jne 2b",
    //
    // Does it run from a mount of its own ("/", or "/ (deleted)"), or from a file in memory
    // ("/memfd:...")? That is what `protect` makes, and must not be gone through again and again.
    // Nor what cannot be told.
    "4:",
    "mov eax, {readlinkat}",
    "mov edi, {here}",
    "lea rsi, [rip + .Lfairlead_executable]",
    "mov rdx, rsp",
    "mov r10d, 4",
    "syscall",
    "cmp rax, 4",
    "jne 8f",
    "cmp byte ptr [rsp + 1], 0x20", // " "
    "je 8f",
    "cmp dword ptr [rsp], 0x6d656d2f", // "/mem"
    "je 8f",
    //
    // A read-only mount of the file, and that executed.
    "mov eax, {open_tree}",
    "mov edi, {here}",
    "lea rsi, [rip + .Lfairlead_executable]",
    "mov edx, {clone}",
    "syscall",
    "test rax, rax",
    "js 8f",
    "mov ebx, eax",
    "mov eax, {mount_setattr}",
    "mov edi, ebx",
    "lea rsi, [rip + .Lfairlead_nothing]",
    "mov edx, {empty_path}",
    "lea r10, [rip + .Lfairlead_read_only]",
    "mov r8d, 32",
    "syscall",
    "test rax, rax",
    "jnz 7f",
    "mov eax, {execveat}",
    "mov edi, ebx",
    "lea rsi, [rip + .Lfairlead_nothing]",
    "mov rdx, r14",
    "mov r10, r15",
    "mov r8d, {empty_path}",
    "syscall",
    "7:",
    "mov eax, {close}",
    "mov edi, ebx",
    "syscall",
    //
    // The segments that are written to, by the program headers. An older kernel refuses, and they
    // come one by one then.
    "8:",
    "lea r8, [rip + __ehdr_start]",
    "mov rbx, [r8 + {e_phoff}]",
    "add rbx, r8",
    "movzx r14d, word ptr [r8 + {e_phnum}]",
    "9:",
    "sub r14d, 1",
    "js 11f",
    "cmp dword ptr [rbx + {p_type}], {pt_load}",
    "jne 10f",
    "test dword ptr [rbx + {p_flags}], {pf_w}",
    "jz 10f",
    "mov rdi, [rbx + {p_vaddr}]",
    "add rdi, r8",
    "mov rsi, [rbx + {p_memsz}]",
    "add rsi, rdi",
    "and rdi, -4096",
    "sub rsi, rdi",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    "10:",
    "add rbx, {phdr}",
    "jmp 9b",
    //
    // As if nothing had been.
    "11:",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp _start",
    ".cfi_endproc",
    ".size fairlead_entry, . - fairlead_entry",
    ".popsection",
    rdonly = const libc::MOUNT_ATTR_RDONLY,
    here = const libc::AT_FDCWD,
    empty_path = const libc::AT_EMPTY_PATH,
    clone = const libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
    populate = const libc::MADV_POPULATE_WRITE,
    readlinkat = const libc::SYS_readlinkat,
    open_tree = const libc::SYS_open_tree,
    mount_setattr = const libc::SYS_mount_setattr,
    execveat = const libc::SYS_execveat,
    close = const libc::SYS_close,
    madvise = const libc::SYS_madvise,
    pt_load = const libc::PT_LOAD,
    pf_w = const libc::PF_W,
    e_phoff = const std::mem::offset_of!(libc::Elf64_Ehdr, e_phoff),
    e_phnum = const std::mem::offset_of!(libc::Elf64_Ehdr, e_phnum),
    p_type = const std::mem::offset_of!(libc::Elf64_Phdr, p_type),
    p_flags = const std::mem::offset_of!(libc::Elf64_Phdr, p_flags),
    p_vaddr = const std::mem::offset_of!(libc::Elf64_Phdr, p_vaddr),
    p_memsz = const std::mem::offset_of!(libc::Elf64_Phdr, p_memsz),
    phdr = const size_of::<libc::Elf64_Phdr>(),
);
