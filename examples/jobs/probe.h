// USDT probes in the form of <sys/sdt.h>, as far as this program needs it, so that it builds with nothing but a compiler.
//
// A probe is one nop, and a note in the file that says where it is, what it is called, and where its arguments are at that moment.
// Format: https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation
#pragma once

#define PROBE_STRING_(text) #text
#define PROBE_STRING(text) PROBE_STRING_(text)

#ifdef PROBE_SEMAPHORES
// A counter that tracers raise while they listen: arguments that cost something are made only then.
#define PROBE_DEFINE(provider, name) \
    unsigned short provider##_##name##_semaphore __attribute__((section(".probes"), used, visibility("hidden")))
#define PROBE_ENABLED(provider, name) (*(volatile unsigned short *)&provider##_##name##_semaphore != 0)
#define PROBE_SEMAPHORE(provider, name) PROBE_STRING(provider##_##name##_semaphore)
#else
#define PROBE_DEFINE(provider, name) _Static_assert(1, "")
#define PROBE_ENABLED(provider, name) 1
#define PROBE_SEMAPHORE(provider, name) "0"
#endif

#define PROBE_(provider, name, arguments, ...)                                        \
    __asm__ __volatile__("990: nop\n"                                                 \
                         ".pushsection .note.stapsdt,\"\",\"note\"\n"                 \
                         ".balign 4\n"                                                \
                         ".4byte 992f-991f, 994f-993f, 3\n"                           \
                         "991: .asciz \"stapsdt\"\n"                                  \
                         "992: .balign 4\n"                                           \
                         "993: .8byte 990b\n"                                         \
                         ".8byte _.stapsdt.base\n"                                    \
                         ".8byte " PROBE_SEMAPHORE(provider, name) "\n"               \
                         ".asciz \"" #provider "\"\n"                                 \
                         ".asciz \"" #name "\"\n"                                     \
                         ".asciz \"" arguments "\"\n"                                 \
                         "994: .balign 4\n"                                           \
                         ".popsection\n"                                              \
                         ".ifndef _.stapsdt.base\n"                                   \
                         ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
                         ".weak _.stapsdt.base\n"                                     \
                         ".hidden _.stapsdt.base\n"                                   \
                         "_.stapsdt.base: .space 1\n"                                 \
                         ".size _.stapsdt.base, 1\n"                                  \
                         ".popsection\n"                                              \
                         ".endif\n" ::__VA_ARGS__)

#define PROBE1(provider, name, a) PROBE_(provider, name, "8@%0", "nor"((unsigned long)(a)))
#define PROBE2(provider, name, a, b) PROBE_(provider, name, "8@%0 8@%1", "nor"((unsigned long)(a)), "nor"((unsigned long)(b)))
