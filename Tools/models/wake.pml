/* SPDX-License-Identifier: Apache-2.0
 *
 * The wake protocol of an event loop (Sources/EventLoop): one loop thread, threads that schedule bottom halves without any
 * lock, and vCPUs that queue submissions under the machine lock while the loop has lent it. No timers: a loop that misses
 * its work sleeps for ever. Names are those of the Swift code; README.md maps each step to its line.
 *
 * Switches (-D):
 *   ALWAYS, ELIDED, NEVER   the wake policy; one of them
 *   RING                    the loop sleeps in its ring (RingMonitor); else it polls level-triggered (PollMonitor, EpollMonitor)
 *   SCHEDULERS=n, VCPUS=n   threads of either kind; ROUNDS=n: what each of them queues
 *   HALVES=n                bottom halves that the schedulers share
 *   TSO                     read-modify-writes are full fences, as x86's locked instructions are
 *   LTL                     the same property as a formula of linear temporal logic, under weak fairness
 * Mutants, each of which takes one step out of the protocol:
 *   NO_FENCE_IN_NOTIFY, NO_FENCE_IN_PREPARE, NO_LOOK_AFTER_PREPARE, CLEAR_BEFORE_CONSUME, CLEAR_AFTER_RUN, NO_REARM
 */

#ifndef SCHEDULERS
#define SCHEDULERS 2
#endif
#ifndef VCPUS
#define VCPUS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef HALVES
#define HALVES 1
#endif
#define THREADS (SCHEDULERS + VCPUS)
/* `memory` and `kernel` come first. */
#define firstScheduler 2

/* --- Shared memory, as all threads see it */

byte event;              /* the eventfd's count */
byte notifyMe;
bool notified;
byte pending;            /* bit b: bottom half b is in the list */
bool isScheduled[HALVES];
byte closures[HALVES];   /* what a bottom half finds when it runs: the queue of `execute`, guarded by a lock of its own */

/* --- Guarded by the machine lock */

bool machineLock;
byte queuedCount;        /* LoopRing: filled in, and not yet counted as taken */
byte deferred;           /* calls in the list */
bool isDeferred;         /* a device's own call: used rings, interrupts */
bool submitterIsDeferred;

/* --- The kernel's side of the ring */

byte inKernel;           /* taken, not completed */
bool completions;        /* whether some wait */
bool armed;              /* the poll entry of the eventfd is in the kernel */
bool pollCompletion;     /* and has completed */

/* --- Ghosts: not in the code, for the properties only */

byte untaken;            /* entries queued that the kernel has not been given */
byte uncalled;           /* calls deferred that have not run */
byte finished;           /* threads that have queued all they will */
#ifdef PER_SLEEP
byte writesSincePrepare;
#endif

#define unseenWork (untaken > 0 || uncalled > 0 || closures[0] > 0 || closures[HALVES - 1] > 0)

/* --- Store buffers
 *
 * A relaxed or releasing store, also that of a read-modify-write whose result decides nothing about memory, may become
 * visible after later loads of the same thread. `memory` makes it visible at some time, but always at last.
 */

byte bufferedPushes[2];                 /* the compare-exchange of `pending` in `schedule` */
chan bufferedNotifyMe = [2] of { bit }; /* of `notifyMe`, in order: 1 adds, 0 subtracts */

#define loopStoresVisible (empty(bufferedNotifyMe))
#define memoryIsQuiet (loopStoresVisible && bufferedPushes[0] == 0 && bufferedPushes[1] == 0)

active proctype memory() {
  byte delta;
endMemory:
  do
  :: atomic { nempty(bufferedNotifyMe) ->
       if
       :: bufferedNotifyMe?[1] -> bufferedNotifyMe?1; notifyMe++
       :: bufferedNotifyMe?[0] -> bufferedNotifyMe?0; notifyMe--
       fi
     }
  :: d_step { bufferedPushes[0] != 0 -> pending = pending | bufferedPushes[0]; bufferedPushes[0] = 0 }
  :: d_step { bufferedPushes[1] != 0 -> pending = pending | bufferedPushes[1]; bufferedPushes[1] = 0 }
  od
}

/* The kernel completes what it has, in its own time. */
active proctype kernel() {
endKernel:
  do
  :: d_step { inKernel > 0 -> inKernel--; completions = true }
#ifdef RING
  :: d_step { armed && event > 0 -> armed = false; pollCompletion = true }
#endif
  od
}

/* --- MachineLock. Giving it back makes the holder's stores visible. */

inline lock() { atomic { !machineLock -> machineLock = true } }
inline unlock() { machineLock = false }

/* --- LoopNotifier */

inline signal() {
  d_step {
    event++;
#if !defined(ALWAYS) && !defined(CLEAR_BEFORE_CONSUME)
    /* No more than one write until the loop has taken the signal. */
    assert(event <= 1);
#endif
#ifdef PER_SLEEP
    writesSincePrepare++;
    assert(writesSincePrepare <= 1);
#endif
  }
}

/* `ownStoresVisible` is what a full fence, and the release of the exchange, wait for. */
inline notify(ownStoresVisible) {
#ifndef NO_FENCE_IN_NOTIFY
  (ownStoresVisible); /* clinux_fence_full */
#endif
  if
#ifdef ALWAYS
  :: true ->
     d_step { ownStoresVisible -> notified = true };
     signal()
#else
  :: notifyMe != 0 ->
     if
     :: d_step { ownStoresVisible && notified -> skip }
     :: d_step { ownStoresVisible && !notified -> notified = true }; signal()
     fi
  :: else
#endif
  fi
}

/* `notify`, subject to the policy. */
inline notifySubmission(ownStoresVisible) {
#ifdef NEVER
  skip
#else
  notify(ownStoresVisible)
#endif
}

inline prepareToSleep() {
#ifdef PER_SLEEP
  writesSincePrepare = 0;
#endif
#ifdef TSO
  atomic { loopStoresVisible -> notifyMe++ }
#else
  bufferedNotifyMe!1
#endif
#ifndef NO_FENCE_IN_PREPARE
  ; (loopStoresVisible) /* clinux_fence_full */
#endif
}

inline finishSleep() {
#ifdef TSO
  atomic { loopStoresVisible -> notifyMe-- }
#else
  bufferedNotifyMe!0
#endif
}

inline accept() {
#ifdef CLEAR_BEFORE_CONSUME
  d_step { loopStoresVisible -> notified = false };
  event = 0
#else
  event = 0; /* consume */
  d_step { loopStoresVisible -> notified = false }
#endif
}

/* --- A thread that calls `execute`, or schedules a bottom half, without any lock */

#if SCHEDULERS > 0
active [SCHEDULERS] proctype scheduler() {
  byte me = _pid - firstScheduler;
  byte left = ROUNDS;
  byte half = me % HALVES;
  do
  :: left > 0 ->
     left--;
     d_step { closures[half]++ };
     /* isScheduled.exchange, acquire-release */
     if
     :: d_step { bufferedPushes[me] == 0 && isScheduled[half] -> skip }
     :: d_step { bufferedPushes[me] == 0 && !isScheduled[half] -> isScheduled[half] = true };
#ifdef TSO
        d_step { pending = pending | (1 << half) };
#else
        bufferedPushes[me] = 1 << half;
#endif
        notify(bufferedPushes[me] == 0)
     fi
  :: left == 0 -> break
  od;
  finished++
}
#endif

/* --- A vCPU: handles an exit under the machine lock, which it gets only while the loop lends it */

inline deferToBatchEnd(flag) {
  if
  :: d_step { flag -> skip }
  :: d_step { !flag -> flag = true; deferred++ };
     /* What it stores is read under the lock, so nothing is in its store buffer that matters. */
     notifySubmission(true)
  fi
}

#if VCPUS > 0
active [VCPUS] proctype vcpu() {
  byte left = ROUNDS;
  do
  :: left > 0 ->
     left--;
     lock();
     if
     :: /* LoopRing.enqueue */
        d_step { queuedCount++; untaken++ };
#ifdef RING
        notifySubmission(true)
#else
        deferToBatchEnd(submitterIsDeferred)
#endif
     :: /* DeferredCall.deferToBatchEnd: the used ring, an interrupt */
        d_step { uncalled = (isDeferred -> uncalled : uncalled + 1) };
        deferToBatchEnd(isDeferred)
     fi;
     unlock()
  :: left == 0 -> break
  od;
  finished++
}
#endif

/* --- The loop thread. What it does between two looks at shared memory is one step. */

/* The loop's own variables, of which there is one thread. */
byte ready;              /* bottom halves taken and not run */
bool progress;
bool notifierIsReady;    /* WatchList */
bool toArm;
byte toSubmit;
byte handedOver;
byte wasWork;

inline runDeferred() {
  d_step {
    if
    :: submitterIsDeferred ->
       /* LoopRing.submit */
       submitterIsDeferred = false; inKernel = inKernel + queuedCount; untaken = untaken - queuedCount; queuedCount = 0
    :: else
    fi;
    if
    :: isDeferred -> isDeferred = false; uncalled--
    :: else
    fi;
    deferred = 0
  }
}

inline runHalf(half) {
#ifdef CLEAR_AFTER_RUN
  closures[half] = 0;
  d_step { loopStoresVisible -> isScheduled[half] = false; ready = ready & ~(1 << half) }
#else
  d_step { loopStoresVisible -> isScheduled[half] = false; ready = ready & ~(1 << half) };
  closures[half] = 0
#endif
}

inline runPending() {
  /* takePending */
  if
  :: pending != 0 -> d_step { ready = ready | pending; pending = 0; progress = true }
  :: else
  fi;
  if
  :: (ready & 1) != 0 -> runHalf(0)
  :: else
  fi
#if HALVES > 1
  ;
  if
  :: (ready & 2) != 0 -> runHalf(1)
  :: else
  fi
#endif
}

inline reap() {
  d_step {
    progress = progress || completions || pollCompletion;
    completions = false;
    notifierIsReady = notifierIsReady || pollCompletion;
    pollCompletion = false
  }
}

inline runQueuedWork() {
  runPending();
  reap();
  runDeferred()
}

inline collectAndDispatch() {
#ifdef RING
  /* waited: counts what was handed over */
  d_step { queuedCount = queuedCount - handedOver; handedOver = 0 };
  reap();
#endif
  if
  :: notifierIsReady ->
     d_step {
       notifierIsReady = false;
       progress = true;
#ifndef NO_REARM
       toArm = true
#endif
     };
     accept()
  :: else
  fi;
  runDeferred()
}

/* DescriptorMonitor.prepare */
inline prepare() {
#ifdef RING
  toSubmit = queuedCount
#else
  skip
#endif
}

/* One system call that hands over and waits: first what is queued, then the poll entry. */
inline enter() {
#ifdef RING
  d_step {
    handedOver = toSubmit; inKernel = inKernel + toSubmit; untaken = untaken - toSubmit; toSubmit = 0;
    armed = armed || toArm; toArm = false
  }
#else
  skip
#endif
}

/* Without the ring, the ring's own descriptor is readable while completions wait. */
inline waitWithoutSleep() {
  enter();
#ifndef RING
  notifierIsReady = event > 0
#endif
}

#ifdef RING
#define isWoken (completions || pollCompletion)
#else
#define isWoken (completions || event > 0)
#endif

/* Nobody is going to do anything any more that could wake the loop. */
#define restIsSilent (finished == THREADS && memoryIsQuiet && inKernel == 0 && !(armed && event > 0))

inline waitWithoutEnd() {
  enter();
  if
  :: atomic { isWoken ->
#ifndef RING
       notifierIsReady = event > 0;
#endif
       skip }
  :: atomic { !isWoken && restIsSilent ->
#ifndef LTL
       /* THE PROPERTY: a loop that sleeps for ever has seen everything. */
       assert(!unseenWork);
#endif
       goto endAsleep
     }
  fi
}

#define hasWork (pending != 0 || notifierIsReady || deferred > 0 || completions || pollCompletion)

inline sleepAndDispatch() {
  prepareToSleep();
#ifdef NO_LOOK_AFTER_PREPARE
  wasWork = false;
#else
  wasWork = hasWork;
#endif
  prepare();
  if
  :: wasWork -> waitWithoutSleep()
  :: else ->
     /* beforeSleep: gives back the machine lock, behind the stores of the loop. */
     d_step { loopStoresVisible -> unlock() };
     waitWithoutEnd();
     lock() /* afterSleep */
  fi;
  wasWork = false;
  finishSleep();
  collectAndDispatch();
  runQueuedWork()
}

/* Hands over and looks; lends the lock meanwhile where there is much to hand over, with `notifyMe` 0. */
inline look() {
  prepare();
  if
  :: toSubmit > 0 ->
     d_step { loopStoresVisible -> unlock() };
     waitWithoutSleep();
     lock()
  :: true -> waitWithoutSleep()
  fi;
  collectAndDispatch()
}

active proctype loop() {
  lock(); /* Machine.run */
  toArm = true;
  do
  :: true ->
     /* runOnce(mayBlock: true) */
     d_step { progress = deferred > 0 };
     runDeferred();
     runQueuedWork();
     if
     :: progress -> look()
     :: else -> sleepAndDispatch()
     fi;
     d_step { progress = false };
     /* MachineLock.yield, between rounds of a loop that does not sleep */
     if
     :: d_step { loopStoresVisible -> unlock() }; lock()
     :: true
     fi
  od;
endAsleep:
  false
}

#ifdef LTL
ltl nothingStaysUnseen { [] (unseenWork -> <> !unseenWork) }
#endif
