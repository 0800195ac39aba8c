// mount, and by the name umount that: what the kubelet asks of them on a machine that has none, as a container with kedge
// alone. Options are those of mount(8) that the kernel knows; what is no flag is given to the file system.
//
//   mount [-t TYPE] [-o OPTION,...] [--make-[r]shared|slave|private] [SOURCE] TARGET
//   umount [-f] [-l] TARGET
#include "sys.h"

#define MS_RDONLY 1
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MS_SLAVE (1 << 19)
#define MS_SHARED (1 << 20)
#define SPREAD_REC (1ul << 30) // ours: MS_REC for the propagation alone
#define DATA_MAX 4096

static const struct {
	const char *name;
	unsigned long set, clear;
} flags[] = {
	{"defaults", 0, 0}, {"rw", 0, MS_RDONLY}, {"ro", MS_RDONLY, 0},
	{"nosuid", 2, 0}, {"suid", 0, 2}, {"nodev", 4, 0}, {"dev", 0, 4}, {"noexec", 8, 0}, {"exec", 0, 8},
	{"sync", 16, 0}, {"async", 0, 16}, {"remount", MS_REMOUNT, 0}, {"mand", 64, 0}, {"dirsync", 128, 0},
	{"noatime", 1024, 0}, {"atime", 0, 1024}, {"nodiratime", 2048, 0}, {"bind", MS_BIND, 0}, {"rbind", MS_BIND | MS_REC, 0},
	{"private", MS_PRIVATE, 0}, {"rprivate", MS_PRIVATE | SPREAD_REC, 0}, {"slave", MS_SLAVE, 0}, {"rslave", MS_SLAVE | SPREAD_REC, 0},
	{"shared", MS_SHARED, 0}, {"rshared", MS_SHARED | SPREAD_REC, 0}, {"relatime", 1 << 21, 0}, {"strictatime", 1 << 24, 0},
};

static char data[DATA_MAX];
static unsigned long used, mode;

static void say(const char *text) { sys4(__NR_write, 2, (long)text, str_len(text), 0); }

static __attribute__((noreturn)) void die(const char *what, const char *subject, long code)
{
	char digits[8] = {0};
	int at = 7;
	say(what);
	say(subject);
	if (code > 0) {
		while (code > 0 && at > 0) { // without division, which some processors lack
			long tens = 0;
			while (code >= 10) {
				code -= 10;
				tens++;
			}
			digits[--at] = '0' + code;
			code = tens;
		}
		say(": error ");
		say(digits + at);
	}
	say("\n");
	sys_exit(32);
}

static int same(const char *a, const char *b, unsigned long n) // n characters of a are all of b
{
	unsigned long i;
	for (i = 0; i < n; i++)
		if (a[i] != b[i])
			return 0;
	return b[n] == 0;
}

static int has_flag(const char *name, unsigned long n)
{
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (same(name, flags[i].name, n)) {
			mode = (mode | flags[i].set) & ~flags[i].clear;
			return 1;
		}
	return 0;
}

// options takes a list: flags into mode, everything else into data.
static void options(const char *list)
{
	while (*list) {
		unsigned long n = 0;
		while (list[n] && list[n] != ',')
			n++;
		if (n > 0 && !has_flag(list, n)) {
			if (used + n + 2 > DATA_MAX)
				die("mount: ", "too many options", 0);
			if (used > 0)
				data[used++] = ',';
			for (unsigned long i = 0; i < n; i++)
				data[used++] = list[i];
		}
		list += n + (list[n] == ',');
	}
}

static void do_mount(const char *source, const char *target, const char *type)
{
	const unsigned long spread = MS_SHARED | MS_SLAVE | MS_PRIVATE;
	unsigned long first = mode & ~(spread | SPREAD_REC);
	long err = 0;
	if (mode & MS_BIND && !(mode & MS_REMOUNT))
		first &= MS_BIND | MS_REC; // the kernel looks at nothing else then
	if (first || !(mode & spread))
		err = sys5(__NR_mount, (long)source, (long)target, (long)type, first, (long)data);
	if (err == 0 && mode & MS_BIND && !(mode & MS_REMOUNT) && mode & ~(MS_BIND | MS_REC | SPREAD_REC | spread))
		err = sys5(__NR_mount, (long)source, (long)target, 0, (mode & ~(MS_REC | SPREAD_REC | spread)) | MS_REMOUNT, 0);
	if (err == 0 && mode & spread)
		err = sys5(__NR_mount, 0, (long)target, 0, (mode & spread) | (mode & SPREAD_REC ? MS_REC : 0), 0);
	if (err < 0)
		die("mount: ", target, -err);
}

__attribute__((noreturn, used)) void start(long *stack)
{
	long argc = stack[0], how = 0, n = 0;
	char **argv = (char **)(stack + 1);
	const char *type = "none", *name = argc > 0 ? argv[0] : "mount", *paths[2] = {0, 0};
	for (const char *c = name; *c; c++)
		if (*c == '/')
			name = c + 1;
	int away = name[0] == 'u';
	for (long i = 1; i < argc; i++) {
		char *word = argv[i];
		if (word[0] != '-') {
			if (n == 2)
				die(name, ": too many arguments", 0);
			paths[n++] = word;
		} else if ((word[1] == 't' || word[1] == 'o') && !away && !word[2]) {
			if (++i == argc)
				die(name, ": an option needs a value", 0);
			if (word[1] == 't')
				type = argv[i];
			else
				options(argv[i]);
		} else if (word[1] == 'f' && away) {
			how |= 1;
		} else if (word[1] == 'l' && away) {
			how |= 2;
		} else if (same(word, "--no-canonicalize", str_len(word))) {
			continue;
		} else if (away || str_len(word) < 8 || !same(word, "--make-", 7) || !has_flag(word + 7, str_len(word + 7))) {
			die(name, ": this small program does not know an option that was given: install util-linux", 0);
		}
	}
	if (n == 0 || (away && n != 1))
		die(name, ": give what to mount and where", 0);
	if (away) {
		long err = sys4(__NR_umount2, (long)paths[0], how, 0, 0);
		if (err < 0)
			die("umount: ", paths[0], -err);
	} else {
		do_mount(n == 2 ? paths[0] : "none", paths[n - 1], type);
	}
	sys_exit(0);
}
