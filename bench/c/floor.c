/* The floor in C: starts N programs, starts each again when it ends, keeps
 * nothing and promises nothing.   floor N CHILD SOCKET PREFIX */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile sig_atomic_t ended;
static void end(int s) { (void)s; ended = 1; }

static pid_t start(char **argv, int i) {
	char name[128];
	pid_t pid = -1;
	snprintf(name, sizeof name, "%s%04d", argv[4], i);
	char *args[] = {argv[2], argv[3], name, NULL};
	if (posix_spawn(&pid, argv[2], NULL, NULL, args, environ) != 0)
		exit(1);
	return pid;
}

int main(int argc, char **argv) {
	if (argc < 5)
		return 2;
	int n = atoi(argv[1]);
	pid_t *pids = calloc((size_t)n, sizeof *pids);
	struct sigaction a = {.sa_handler = end};
	sigaction(SIGTERM, &a, NULL);
	for (int i = 0; i < n; i++)
		pids[i] = start(argv, i);
	while (!ended) {
		pid_t gone = waitpid(-1, NULL, 0);
		for (int i = 0; gone > 0 && !ended && i < n; i++)
			if (pids[i] == gone)
				pids[i] = start(argv, i);
	}
	for (int i = 0; i < n; i++)
		kill(pids[i], SIGTERM);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return 0;
}
