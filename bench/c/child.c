/* The program under supervision, as small as it can be: its start costs next to
 * nothing, so that what is measured is the supervisor. It says NAME PID to a
 * datagram socket the moment it runs, and then waits for its end.
 *
 *   child SOCKET NAME              say it and wait
 *   child SOCKET NAME lines N      then write N numbered lines of 100 bytes, say NAME.done, wait
 *   child SOCKET NAME tree         then start four kinds of descendants that say NAME.KIND
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
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
	say(argv[2], "");
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
