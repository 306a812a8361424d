/* The program under supervision, as small as it can be: its start costs next to
 * nothing, so that what is measured is the supervisor. It says NAME PID to a
 * datagram socket the moment it runs, and then waits for its end.
 *
 *   child SOCKET NAME              say it and wait
 *   child SOCKET NAME lines N      then write N numbered lines of 100 bytes, say NAME.done, wait
 *   child SOCKET NAME tree         then start four kinds of descendants that say NAME.KIND
 *   child SOCKET NAME exit         end with 113 on SIGUSR1, with 114 on SIGUSR2
 *   child SOCKET NAME ticks PREFIX then write 20 lines "TPID NUMBER x..." of 100 bytes every 10 ms until SIGUSR1,
 *                                  and keep their number in the file PREFIX.PID, behind each line
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *path;

static void say(const char *name, const char *suffix) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char text[256];
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int n = snprintf(text, sizeof text, "%s%s %d", name, suffix, (int)getpid());
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	if (s < 0 || sendto(s, text, (size_t)n, 0, (struct sockaddr *)&a, sizeof a) < 0) {
		perror("child: cannot speak to the harness");
		_exit(1);
	}
	close(s);
}

static void rest(void) {
	for (;;)
		pause();
}

static void lines(long count) {
	enum { LINE = 100, LINES = 655 };
	static char block[LINE * LINES + 1];
	for (long i = 0; i < count;) {
		int k = 0;
		for (; k < LINES && i < count; k++, i++) {
			char *p = block + k * LINE;
			memset(p, 'x', LINE);
			p[LINE - 1] = '\n';
			char number[24];
			snprintf(number, sizeof number, "%010ld ", i);
			memcpy(p, number, 11);
		}
		for (size_t done = 0, all = (size_t)k * LINE; done < all;) {
			ssize_t n = write(1, block + done, all - done);
			if (n < 0) {
				perror("child: cannot write");
				_exit(1);
			}
			done += (size_t)n;
		}
	}
}

static volatile sig_atomic_t told;
static void tell(int s) { (void)s; told = 1; }
static void end113(int s) { (void)s; _exit(113); }
static void end114(int s) { (void)s; _exit(114); }

static void on(int number, void (*f)(int)) {
	struct sigaction a = {.sa_handler = f, .sa_flags = SA_RESTART};
	sigaction(number, &a, NULL);
}

static void ticks(const char *prefix) {
	enum { LINE = 100 };
	const struct timespec pause = {.tv_nsec = 10000000};
	char name[4096], line[LINE + 1], number[24];
	long count = 0;
	snprintf(name, sizeof name, "%s.%d", prefix, (int)getpid());
	int kept = open(name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
	if (kept < 0 || pwrite(kept, "0\n", 2, 0) != 2) {
		perror("child: cannot keep the number of lines");
		_exit(1);
	}
	while (!told) {
		for (int i = 0; i < 20; i++) {
			int n = snprintf(line, sizeof line, "T%d %010ld ", (int)getpid(), count);
			memset(line + n, 'x', (size_t)(LINE - n));
			line[LINE - 1] = '\n';
			/* PIPE_BUF makes it whole or nothing (pipe(7)). */
			if (write(1, line, LINE) != LINE)
				_exit(1);
			n = snprintf(number, sizeof number, "%ld\n", ++count);
			if (pwrite(kept, number, (size_t)n, 0) != n)
				_exit(1);
		}
		nanosleep(&pause, NULL);
	}
}

static void descendant(const char *name, const char *kind, int session, int twice) {
	if (fork() != 0)
		return;
	if (session)
		setsid();
	if (twice && fork() != 0)
		_exit(0);
	say(name, kind);
	rest();
}

int main(int argc, char **argv) {
	if (argc < 3)
		return 2;
	path = argv[1];
	int does_exit = argc > 3 && strcmp(argv[3], "exit") == 0;
	int does_tick = argc > 4 && strcmp(argv[3], "ticks") == 0;
	if (does_exit) {
		on(SIGUSR1, end113);
		on(SIGUSR2, end114);
	}
	if (does_tick)
		on(SIGUSR1, tell);
	say(argv[2], "");
	if (does_tick)
		ticks(argv[4]);
	if (argc > 4 && strcmp(argv[3], "lines") == 0) {
		lines(atol(argv[4]));
		say(argv[2], ".done");
	}
	if (argc > 3 && strcmp(argv[3], "tree") == 0) {
		descendant(argv[2], ".plain", 0, 0);
		descendant(argv[2], ".setsid", 1, 0);
		descendant(argv[2], ".double", 0, 1);
		descendant(argv[2], ".both", 1, 1);
	}
	rest();
}
