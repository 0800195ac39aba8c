// pause is process 1 of every pod sandbox: it holds the namespaces, reaps
// orphans when the pod shares its process namespace, and ends on TERM or INT.
#include "sys.h"

#define SIGINT 2
#define SIGTERM 15
#define SIGCHLD 17
#define SIG_BLOCK 0
#define WNOHANG 1
#define SIGBIT(n) (1ull << ((n) - 1))

__attribute__((noreturn, used)) void start(long *stack)
{
	(void)stack;
	// Blocked signals are queued even for process 1, so no handlers are needed.
	unsigned long long set = SIGBIT(SIGINT) | SIGBIT(SIGTERM) | SIGBIT(SIGCHLD);
	sys4(__NR_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof(set));
	for (;;) {
		long sig = sys4(__NR_rt_sigtimedwait, (long)&set, 0, 0, sizeof(set));
		if (sig == SIGINT || sig == SIGTERM)
			sys_exit(0);
		while (sys4(__NR_wait4, -1, 0, WNOHANG, 0) > 0)
			;
	}
}
