// SPDX-License-Identifier: Apache-2.0
//
// The few C functions that compiled Swift calls, the interrupt table, and the last words of a guest that cannot go on.

#include "cguest.h"

#include <stddef.h>

#define SERIAL 0x3f8
#define SERIAL_STATUS_READS_MAX 100000
#define DEBUG_EXIT 0xf4
#define FAILURE_CODE 127
#define CODE64 0x10
#define INTERRUPT_GATE 0x8e00
#define LAPIC 0xfee00000ull
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0
#define LAPIC_ENABLE 0x1ff
#define LAPIC_DIVIDE_BY_16 3
// A wait for a silent device ends by this timer: every 100 ms where the bus runs at 1 GHz.
#define WATCHDOG_PERIODIC (1 << 17)
#define WATCHDOG_COUNT 6250000

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  void *cursor = to;
  __asm__ volatile("rep movsb" : "+D"(cursor), "+S"(from), "+c"(count) : : "memory");
  return to;
}

void *memset(void *to, int value, size_t count) {
  void *cursor = to;
  __asm__ volatile("rep stosb" : "+D"(cursor), "+c"(count) : "a"(value) : "memory");
  return to;
}

void *memmove(void *to, const void *from, size_t count) {
  if ((uintptr_t)to - (uintptr_t)from >= count) {
    return memcpy(to, from, count);
  }
  volatile uint8_t *target = to;
  const volatile uint8_t *source = from;
  while (count > 0) {
    count--;
    target[count] = source[count];
  }
  return to;
}

int memcmp(const void *left, const void *right, size_t count) {
  const volatile uint8_t *a = left;
  const volatile uint8_t *b = right;
  for (size_t index = 0; index < count; index++) {
    if (a[index] != b[index]) {
      return a[index] < b[index] ? -1 : 1;
    }
  }
  return 0;
}

// The heap only grows: the program allocates while it sets things up, and ends. Processors share it.
static uint64_t heap_next;
static uint64_t heap_end;

void cguest_set_heap(uint64_t begin, uint64_t end) {
  heap_next = begin;
  heap_end = end;
}

int posix_memalign(void **result, size_t alignment, size_t count) {
  uint64_t seen = __atomic_load_n(&heap_next, __ATOMIC_RELAXED);
  for (;;) {
    uint64_t begin = (seen + alignment - 1) & ~(uint64_t)(alignment - 1);
    if (begin + count > heap_end) {
      return 12;
    }
    if (__atomic_compare_exchange_n(&heap_next, &seen, begin + count, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      *result = (void *)begin;
      return 0;
    }
  }
}

void free(void *memory) { (void)memory; }

uintptr_t __stack_chk_guard = 0x5350494e444c4521;

void __stack_chk_fail(void) { cguest_exit(FAILURE_CODE); }

static void put_character(char character) {
  for (int reads = 0; reads < SERIAL_STATUS_READS_MAX && !(cguest_in8(SERIAL + 5) & 0x20); reads++) {
  }
  cguest_out8(SERIAL, (uint8_t)character);
}

static void put_text(const char *text) {
  while (*text) {
    put_character(*text++);
  }
}

static void put_number(uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) {
    uint8_t digit = value >> shift & 15;
    put_character((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
  }
}

_Noreturn void cguest_exit(uint32_t code) {
  cguest_out32(DEBUG_EXIT, code);
  for (;;) {
    __asm__ volatile("cli; hlt");
  }
}

_Noreturn void cguest_refuse_start(void) {
  put_text("Bail out! no PVH start info, or no RAM behind the image\n");
  cguest_exit(FAILURE_CODE);
}

_Noreturn void cguest_refuse_clock(void) {
  put_text("Bail out! no clock of known rate: neither CPUID leaf 0x40000010 nor an 8254\n");
  cguest_exit(FAILURE_CODE);
}

_Noreturn void cguest_report_exception(uint64_t vector, uint64_t error, uint64_t rip, uint64_t cr2) {
  put_text("\nBail out! exception ");
  put_number(vector);
  put_text(" error ");
  put_number(error);
  put_text(" rip ");
  put_number(rip);
  put_text(" cr2 ");
  put_number(cr2);
  put_text("\n");
  cguest_exit(FAILURE_CODE);
}

struct gate {
  uint16_t offset_low;
  uint16_t selector;
  uint16_t flags;
  uint16_t offset_middle;
  uint32_t offset_high;
  uint32_t reserved;
};

extern uint8_t cguest_gates[];
static struct gate gates[256];

// Loads the interrupt table on the calling processor, and turns its local APIC on with the watchdog running.
void cguest_load_interrupt_table(void) {
  struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
  } pointer = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lidt %0" : : "m"(pointer));
  cguest_write32(LAPIC + LAPIC_SPURIOUS, LAPIC_ENABLE);
  cguest_write32(LAPIC + LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_16);
  cguest_start_watchdog();
}

void cguest_start_watchdog(void) {
  cguest_write32(LAPIC + LAPIC_TIMER, CGUEST_WATCHDOG_VECTOR | WATCHDOG_PERIODIC);
  cguest_write32(LAPIC + LAPIC_TIMER_INITIAL, WATCHDOG_COUNT);
}

void cguest_stop_watchdog(void) {
  cguest_write32(LAPIC + LAPIC_TIMER_INITIAL, 0);
  cguest_write32(LAPIC + LAPIC_TIMER, CGUEST_SLEEP_VECTOR);
}

void cguest_start_timer(uint32_t count) { cguest_write32(LAPIC + LAPIC_TIMER_INITIAL, count); }

uint32_t cguest_timer_left(void) { return cguest_read32(LAPIC + LAPIC_TIMER_CURRENT); }

// Fills the interrupt table, and masks the two 8259 controllers, whose vectors would look like exceptions.
void cguest_set_up_interrupts(void) {
  for (int vector = 0; vector < 256; vector++) {
    uint64_t address = (uint64_t)cguest_gates + 16 * (uint64_t)vector;
    gates[vector].offset_low = (uint16_t)address;
    gates[vector].selector = CODE64;
    gates[vector].flags = INTERRUPT_GATE;
    gates[vector].offset_middle = (uint16_t)(address >> 16);
    gates[vector].offset_high = (uint32_t)(address >> 32);
  }
  cguest_out8(0x21, 0xff);
  cguest_out8(0xa1, 0xff);
  cguest_load_interrupt_table();
}
