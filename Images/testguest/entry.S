// SPDX-License-Identifier: Apache-2.0
//
// From the PVH entry point (32-bit protected mode, paging off, ebx = start info) to 64-bit Swift, the interrupt
// gates, and the way of an application processor from real mode to the same place.

  .set PAGE_PRESENT_WRITE, 0x3
  .set PAGE_LARGE, 0x83            // present, writable, 2 MiB
  .set CR0_PE, 0x1
  .set CR0_PG, 0x80000000
  .set CR4_PAE, 0x20
  .set MSR_EFER, 0xc0000080
  .set EFER_LME, 0x100
  .set CODE32, 0x08
  .set CODE64, 0x10
  .set DATA, 0x18
  .set LAPIC_EOI, 0xfee000b0
  .set SPURIOUS_VECTOR, 0xff
  .set ERROR_CODE_VECTORS, 0x60227d00  // 8, 10 to 14, 17, 21, 29, 30
  .set STACK_BYTES, 0x10000
  .set TRAMPOLINE, 0x8000          // below 1 MiB, on a page: the SIPI vector is its page number

// XEN_ELFNOTE_PHYS32_ENTRY: the note that makes an ELF file bootable by PVH.
  .section .note.pvh, "a", @note
  .balign 4
  .long 4
  .long 4
  .long 18
  .asciz "Xen"
  .long pvh_start

  .section .text.entry, "ax", @progbits
  .code32
  .global pvh_start
pvh_start:
  cli
  cld
  movl %ebx, %esi
  // .bss first: the page tables and every variable live in it.
  movl $bss_begin, %edi
  movl $bss_end, %ecx
  subl %edi, %ecx
  shrl $2, %ecx
  xorl %eax, %eax
  rep stosl
  movl %esi, cguest_start_info

  // Four page directories of 2 MiB pages map the low 4 GiB to themselves.
  movl $page_directories, %edi
  movl $PAGE_LARGE, %eax
  movl $2048, %ecx
1:
  movl %eax, (%edi)
  addl $0x200000, %eax
  addl $8, %edi
  loop 1b
  movl $page_directories + PAGE_PRESENT_WRITE, %eax
  movl $page_directory_pointers, %edi
  movl $4, %ecx
2:
  movl %eax, (%edi)
  addl $0x1000, %eax
  addl $8, %edi
  loop 2b
  movl $page_directory_pointers + PAGE_PRESENT_WRITE, page_map

  lgdt gdt_pointer
  call enter_long_mode
  ljmp $CODE64, $start64

// Turns paging and long mode on; the next far jump leaves compatibility mode.
enter_long_mode:
  movl %cr4, %eax
  orl $CR4_PAE, %eax
  movl %eax, %cr4
  movl $page_map, %eax
  movl %eax, %cr3
  movl $MSR_EFER, %ecx
  rdmsr
  orl $EFER_LME, %eax
  wrmsr
  movl %cr0, %eax
  orl $CR0_PG | CR0_PE, %eax
  movl %eax, %cr0
  ret

  .code64
start64:
  movl $DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %fs
  movl %eax, %gs
  movl %eax, %ss
  leaq stack_end(%rip), %rsp
  xorl %ebp, %ebp
  call guest_main
  movl %eax, %edi
  call cguest_exit

// An application processor, in 32-bit mode, with this image's GDT.
  .code32
processor_start32:
  movl $DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl cguest_processor_stack, %esp
  call enter_long_mode
  ljmp $CODE64, $processor_start64
  .code64
processor_start64:
  movq cguest_processor_stack(%rip), %rsp
  xorl %ebp, %ebp
  call guest_processor_main
3:
  cli
  hlt
  jmp 3b

// What SIPI starts, in real mode at TRAMPOLINE:0; copied there before. It uses its own copy of the GDT's pointer.
  .code16
  .global cguest_trampoline_begin, cguest_trampoline_end
cguest_trampoline_begin:
  cli
  cld
  xorw %ax, %ax
  movw %ax, %ds
  lgdtl TRAMPOLINE + trampoline_gdt_pointer - cguest_trampoline_begin
  movl %cr0, %eax
  orl $CR0_PE, %eax
  movl %eax, %cr0
  ljmpl $CODE32, $processor_start32
  .balign 8
trampoline_gdt_pointer:
  .word gdt_end - gdt - 1
  .long gdt
cguest_trampoline_end:
  .code64

// One gate per vector, 16 bytes apart. Exceptions that push no error code push a zero, so that all frames look alike.
  .balign 16
  .global cguest_gates
cguest_gates:
  .set vector, 0
  .rept 256
  .balign 16
  .if vector < 32
    .if ((1 << vector) & ERROR_CODE_VECTORS) == 0
      pushq $0
    .endif
    pushq $vector
    jmp exception
  .else
    pushq $vector
    jmp interrupt
  .endif
  .set vector, vector + 1
  .endr

exception:
  movq (%rsp), %rdi
  movq 8(%rsp), %rsi
  movq 16(%rsp), %rdx
  movq %cr2, %rcx
  andq $-16, %rsp
  call cguest_report_exception

// Counts the vector and ends the interrupt. Each vector arrives at one processor, so the increment needs no lock.
interrupt:
  pushq %rax
  movq 8(%rsp), %rax
  incl cguest_interrupt_counts(,%rax,4)
  cmpl $SPURIOUS_VECTOR, %eax
  je 4f
  movl $LAPIC_EOI, %eax
  movl $0, (%rax)
4:
  popq %rax
  addq $8, %rsp
  iretq

  .section .rodata.gdt, "a", @progbits
  .balign 8
gdt:
  .quad 0
  .quad 0x00cf9b000000ffff         // CODE32
  .quad 0x00af9b000000ffff         // CODE64
  .quad 0x00cf93000000ffff         // DATA
gdt_end:
gdt_pointer:
  .word gdt_end - gdt - 1
  .long gdt

  .section .bss.entry, "aw", @nobits
  .balign 4096
page_map:
  .skip 4096
page_directory_pointers:
  .skip 4096
page_directories:
  .skip 4 * 4096
  .global cguest_interrupt_counts, cguest_start_info, cguest_processor_is_up, cguest_processor_stack
cguest_interrupt_counts:
  .skip 256 * 4
cguest_processor_stack:
  .skip 8
cguest_start_info:
  .skip 4
cguest_processor_is_up:
  .skip 4

// Not cleared: nothing reads a stack before it writes it.
  .section .stack, "aw", @nobits
  .balign 4096
  .skip STACK_BYTES
stack_end:
  .section .note.GNU-stack, "", @progbits
