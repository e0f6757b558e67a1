// SPDX-License-Identifier: Apache-2.0
// The KVM interface for Swift: request numbers (macros that Swift does not import) as constants, flexible arrays behind
// accessors, and one ioctl wrapper that returns a negative errno value in one step.
#ifndef SPINDLE_CKVM_H
#define SPINDLE_CKVM_H

#include <features.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define CKVM_REQUEST(name) static const unsigned long ckvm_##name = KVM_##name
CKVM_REQUEST(GET_API_VERSION);
CKVM_REQUEST(CREATE_VM);
CKVM_REQUEST(CHECK_EXTENSION);
CKVM_REQUEST(GET_VCPU_MMAP_SIZE);
CKVM_REQUEST(GET_SUPPORTED_CPUID);
CKVM_REQUEST(SET_TSS_ADDR);
CKVM_REQUEST(SET_IDENTITY_MAP_ADDR);
CKVM_REQUEST(CREATE_IRQCHIP);
CKVM_REQUEST(CREATE_VCPU);
CKVM_REQUEST(SET_USER_MEMORY_REGION);
CKVM_REQUEST(SET_CPUID2);
CKVM_REQUEST(GET_TSC_KHZ);
CKVM_REQUEST(GET_SREGS);
CKVM_REQUEST(SET_SREGS);
CKVM_REQUEST(SET_REGS);
CKVM_REQUEST(GET_REGS);
CKVM_REQUEST(TRANSLATE);
CKVM_REQUEST(RUN);
CKVM_REQUEST(IRQ_LINE);
CKVM_REQUEST(SIGNAL_MSI);
CKVM_REQUEST(SET_GSI_ROUTING);
CKVM_REQUEST(IRQFD);
CKVM_REQUEST(IOEVENTFD);

static inline int ckvm_ioctl(int fd, unsigned long request, uintptr_t argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

/// A cpuid table with room for `count` entries, freed by the caller.
static inline struct kvm_cpuid2 *ckvm_cpuid_make(uint32_t count) {
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + count * sizeof(struct kvm_cpuid_entry2));
  if (table) table->nent = count;
  return table;
}
static inline struct kvm_cpuid_entry2 *ckvm_cpuid_entries(struct kvm_cpuid2 *table) { return table->entries; }

/// A GSI routing table with room for `count` entries, freed by the caller.
static inline struct kvm_irq_routing *ckvm_routing_make(uint32_t count) {
  struct kvm_irq_routing *table = calloc(1, sizeof *table + count * sizeof(struct kvm_irq_routing_entry));
  if (table) table->nr = count;
  return table;
}
static inline struct kvm_irq_routing_entry *ckvm_routing_entries(struct kvm_irq_routing *table) {
  return table->entries;
}

/// Asks each KVM_RUN from now on to return at once (kvm_run.immediate_exit). Any thread.
static inline void ckvm_set_immediate_exit(struct kvm_run *run, uint8_t value) {
  __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

#endif
