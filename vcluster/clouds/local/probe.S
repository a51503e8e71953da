# A 512-byte boot sector. It enters long mode with page tables of its own, counts 20 million rounds there and
# says 0x10 on the debug-exit port: what runs this within the time limit runs an ordinary 64-bit kernel natively.
.code16
.globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x1000, %di            # three zeroed pages: PML4, PDPT, PD
    mov $0x1800, %cx
    cld
    rep stosw
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x0083, 0x3000        # the first 2 MiB, mapped to themselves
    mov $0x1000, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax              # PAE
    mov %eax, %cr4
    mov $0xc0000080, %ecx       # EFER.LME
    rdmsr
    or $0x100, %eax
    wrmsr
    lgdt gdt_pointer
    mov %cr0, %eax
    or $0x80000001, %eax        # paging and protection
    mov %eax, %cr0
    ljmp $8, $long_mode
.code64
long_mode:
    mov $20000000, %ecx
1:  dec %ecx
    jnz 1b
    mov %cr3, %rax              # privileged work in long mode, as any kernel does
    mov %rax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    test $0x400, %eax           # EFER.LMA: really in long mode
    jz 2f
    mov $0x10, %al
    mov $0xf4, %dx
    out %al, %dx
2:  hlt
    jmp 2b
.balign 8
gdt: .quad 0, 0x00209a0000000000
gdt_pointer: .word 15
    .long gdt
.org 510
    .word 0xaa55
