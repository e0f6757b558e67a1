// SPDX-License-Identifier: Apache-2.0
//
// What Swift cannot say: single instructions, and accesses that the compiler may neither drop, repeat nor reorder.

#ifndef CGUEST_H
#define CGUEST_H

#include <stdint.h>

#define CGUEST_INLINE static inline __attribute__((always_inline))

// Set by entry.S.
extern uint32_t cguest_start_info;
extern volatile uint32_t cguest_interrupt_counts[256];
extern volatile uint32_t cguest_processor_is_up;
extern uint64_t cguest_processor_stack;
extern uint8_t cguest_image_end[];
extern uint8_t cguest_trampoline_begin[];
extern uint8_t cguest_trampoline_end[];

// Defined in rt.c.
void cguest_set_up_interrupts(void);
void cguest_load_interrupt_table(void);
void cguest_set_heap(uint64_t begin, uint64_t end);
_Noreturn void cguest_exit(uint32_t code);
// Says that the loader left no start info, or no RAM behind the image, and exits as a failure.
_Noreturn void cguest_refuse_start(void);
// Says that the machine has no clock of known rate, and exits as a failure.
_Noreturn void cguest_refuse_clock(void);

// The calling processor's local APIC timer: its divider; the vectors of its two uses, the watchdog, which ends a wait for
// a silent device every now and then, and a sleep.
#define CGUEST_TIMER_DIVIDER 16
#define CGUEST_WATCHDOG_VECTOR 0x20
#define CGUEST_SLEEP_VECTOR 0x21
void cguest_start_watchdog(void);
// Leaves the timer stopped, in one-shot mode, to `cguest_start_timer`.
void cguest_stop_watchdog(void);
// Counts down once, from `count` on, at the timer's rate; the sleep's interrupt arrives at 0.
void cguest_start_timer(uint32_t count);
uint32_t cguest_timer_left(void);

CGUEST_INLINE void cguest_out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
CGUEST_INLINE void cguest_out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
CGUEST_INLINE void cguest_out32(uint16_t port, uint32_t value) {
  __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
CGUEST_INLINE uint8_t cguest_in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
CGUEST_INLINE uint16_t cguest_in16(uint16_t port) {
  uint16_t value;
  __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
CGUEST_INLINE uint32_t cguest_in32(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

CGUEST_INLINE uint8_t cguest_read8(uint64_t address) { return *(volatile uint8_t *)address; }
CGUEST_INLINE uint16_t cguest_read16(uint64_t address) { return *(volatile uint16_t *)address; }
CGUEST_INLINE uint32_t cguest_read32(uint64_t address) { return *(volatile uint32_t *)address; }
CGUEST_INLINE uint64_t cguest_read64(uint64_t address) { return *(volatile uint64_t *)address; }
CGUEST_INLINE void cguest_write8(uint64_t address, uint8_t value) { *(volatile uint8_t *)address = value; }
CGUEST_INLINE void cguest_write16(uint64_t address, uint16_t value) { *(volatile uint16_t *)address = value; }
CGUEST_INLINE void cguest_write32(uint64_t address, uint32_t value) { *(volatile uint32_t *)address = value; }
CGUEST_INLINE void cguest_write64(uint64_t address, uint64_t value) { *(volatile uint64_t *)address = value; }

// x86 keeps loads in order and stores in order; only a store before a load needs an instruction.
CGUEST_INLINE void cguest_compiler_barrier(void) { __asm__ volatile("" : : : "memory"); }
CGUEST_INLINE void cguest_full_barrier(void) { __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc"); }

CGUEST_INLINE void cguest_pause(void) { __asm__ volatile("pause" : : : "memory"); }
CGUEST_INLINE uint64_t cguest_time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

struct cguest_cpuid_result {
  uint32_t eax, ebx, ecx, edx;
};
CGUEST_INLINE struct cguest_cpuid_result cguest_cpuid(uint32_t leaf) {
  struct cguest_cpuid_result result;
  __asm__ volatile("cpuid"
                   : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
                   : "a"(leaf), "c"(0));
  return result;
}

CGUEST_INLINE uint32_t cguest_interrupt_count(uint32_t vector) { return cguest_interrupt_counts[vector & 255]; }

// Halts until an interrupt unless the vector's count has left `seen` already. An interrupt that arrives after the
// comparison stays pending until `sti` has taken effect, which is after the next instruction, so `hlt` ends at once.
CGUEST_INLINE void cguest_halt_unless_counted(uint32_t vector, uint32_t seen) {
  __asm__ volatile("cli" : : : "memory");
  if (cguest_interrupt_counts[vector & 255] != seen) {
    __asm__ volatile("sti" : : : "memory");
    return;
  }
  __asm__ volatile("sti; hlt" : : : "memory");
}

CGUEST_INLINE void cguest_zero(uint64_t address, uint64_t word_count) {
  __asm__ volatile("rep stosq" : "+D"(address), "+c"(word_count) : "a"(0) : "memory");
}

CGUEST_INLINE uint64_t cguest_start_info_address(void) { return cguest_start_info; }

// The hand-over to an application processor: its stack goes to entry.S, its answer comes from `cguest_answer`.
CGUEST_INLINE void cguest_expect_processor(uint64_t stack) {
  cguest_processor_stack = stack;
  cguest_processor_is_up = 0;
}
CGUEST_INLINE uint32_t cguest_has_answered(void) { return cguest_processor_is_up; }
CGUEST_INLINE void cguest_answer(void) { cguest_processor_is_up = 1; }

CGUEST_INLINE uint64_t cguest_image_end_address(void) { return (uint64_t)cguest_image_end; }

// Copies what SIPI starts to `address`.
CGUEST_INLINE void cguest_copy_trampoline(uint64_t address) {
  for (uint64_t index = 0; index < (uint64_t)(cguest_trampoline_end - cguest_trampoline_begin); index++) {
    ((volatile uint8_t *)address)[index] = cguest_trampoline_begin[index];
  }
}

// Enables the calling processor's interrupts and takes those that are pending.
CGUEST_INLINE void cguest_enable_interrupts(void) { __asm__ volatile("sti" : : : "memory"); }

#endif
