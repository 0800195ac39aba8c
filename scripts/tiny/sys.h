// The few system calls that the tiny programs need, without a C library: the
// programs stay at a few kilobytes of file and memory and run on any Linux.
#ifndef KEDGE_TINY_SYS_H
#define KEDGE_TINY_SYS_H

#include <asm/unistd.h>

#define AT_FDCWD (-100)
#define NULL ((void *)0)

#if defined(__x86_64__)
static long sys5(long n, long a, long b, long c, long d, long e)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}
__asm__(".globl _start\n_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call start\n");
#elif defined(__aarch64__)
static long sys5(long n, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n"
	"	mov x29, xzr\n"
	"	mov x0, sp\n"
	"	bl start\n");
#elif defined(__arm__)
static long sys5(long n, long a, long b, long c, long d, long e)
{
	register long r7 __asm__("r7") = n;
	register long r0 __asm__("r0") = a;
	register long r1 __asm__("r1") = b;
	register long r2 __asm__("r2") = c;
	register long r3 __asm__("r3") = d;
	register long r4 __asm__("r4") = e;
	__asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4) : "memory");
	return r0;
}
__asm__(".globl _start\n_start:\n"
	"	mov r0, sp\n"
	"	bic sp, sp, #7\n"
	"	bl start\n");
#else
#error "unsupported architecture"
#endif

static __attribute__((unused)) long sys4(long n, long a, long b, long c, long d) { return sys5(n, a, b, c, d, 0); }

static __attribute__((noreturn)) void sys_exit(int code)
{
	for (;;)
		sys4(__NR_exit_group, code, 0, 0, 0);
}

static __attribute__((unused)) unsigned long str_len(const char *s)
{
	unsigned long n = 0;
	while (s[n])
		n++;
	return n;
}

#endif
