// nft starts the bundled nft program with the loader and libraries that travel
// with it (../lib/nft beside this file's directory), so that it runs on a host
// with another C library, an older one, or none.
#include "sys.h"

#define AT_NULL 0
#define AT_EXECFN 31
#define PATH_MAX 4096
#define ARGS_MAX 1024

#ifndef LOADER
#error "define LOADER as the file name of the dynamic loader"
#endif

static char self[PATH_MAX], lib[PATH_MAX], loader[PATH_MAX], program[PATH_MAX];
static char *args[ARGS_MAX + 16];

static __attribute__((noreturn)) void die(const char *message)
{
	sys4(__NR_write, 2, (long)"nft: ", 5, 0);
	sys4(__NR_write, 2, (long)message, str_len(message), 0);
	sys4(__NR_write, 2, (long)"\n", 1, 0);
	sys_exit(127);
}

static void join(char *dst, const char *dir, const char *name)
{
	unsigned long a = str_len(dir), b = str_len(name), i;
	if (a + b + 1 > PATH_MAX)
		die("path of the program is too long");
	for (i = 0; i < a; i++)
		dst[i] = dir[i];
	for (i = 0; i <= b; i++)
		dst[a + i] = name[i];
}

static int has_prefix(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return 0;
	return 1;
}

// find_self fills self with the directory of this program, with its slash.
// Without /proc it falls back on the path that was given to execve.
static void find_self(char **env)
{
	long n = sys4(__NR_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)self, PATH_MAX - 1);
	if (n <= 0) {
		while (*env)
			env++;
		unsigned long *aux = (unsigned long *)(env + 1);
		while (aux[0] != AT_NULL && aux[0] != AT_EXECFN)
			aux += 2;
		if (aux[0] == AT_NULL)
			die("cannot find out where this program is");
		join(self, "", (const char *)aux[1]);
		n = str_len(self);
	} else {
		self[n] = 0;
	}
	while (n > 0 && self[n - 1] != '/')
		n--;
	self[n] = 0;
}

// drop_preload removes LD_PRELOAD: it names libraries of another C library.
static void drop_preload(char **env)
{
	char **to = env;
	for (; *env; env++)
		if (!has_prefix(*env, "LD_PRELOAD="))
			*to++ = *env;
	*to = NULL;
}

__attribute__((noreturn, used)) void start(long *stack)
{
	long argc = stack[0], n = 0;
	char **argv = (char **)(stack + 1), **env = argv + argc + 1;
	if (argc > ARGS_MAX)
		die("too many arguments");
	find_self(env); // before drop_preload, which moves the end of env
	drop_preload(env);
	join(lib, self, "../lib/nft");
	join(loader, lib, "/" LOADER);
	join(program, lib, "/nft");
	args[n++] = loader;
	args[n++] = "--inhibit-cache";
	args[n++] = "--library-path";
	args[n++] = lib;
	args[n++] = "--preload";
	args[n++] = "libprotocols.so"; // found in lib, see protocols.c
	args[n++] = "--argv0";
	args[n++] = "nft";
	args[n++] = program;
	for (long i = 1; i < argc; i++)
		args[n++] = argv[i];
	args[n] = NULL;
	sys4(__NR_execve, (long)loader, (long)args, (long)env, 0);
	die("cannot start the bundled loader in ../lib/nft");
}
