/*
 * hansad serve: the coordinator in the foreground, until SIGTERM or SIGINT.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/signals.h"
#include "coordinator/commands.h"
#include "coordinator/daemon.h"
#include "coordinator/notify.h"
#include "coordinator/settings.h"
#include "rpc/client.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { GRACE_MS = 10000 };

struct serve_args {
	const char *config;
};

static enum err lock_directory(const char *config)
{
	const char *slash = strrchr(config, '/');
	char *dir = slash != NULL && slash != config ? mem_printf("%.*s", (int)(slash - config), config)
						     : mem_str(slash != NULL ? "/" : ".");
	enum err err =
		file_exists(config)
			? dir_lock(dir)
			: err_set(ERR_NOT_FOUND, "%s: no such file; make a federation with: hansad init DIR", config);
	free(dir);
	return err;
}

/* Waiting plants and spooled updates cost a file descriptor each; the usual soft limit of 1024 is far below parked_max. */
static void raise_limits(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) != 0)
		log_warn("serve", "cannot raise the limit of open files");
}

static void wait_for_end(void)
{
	for (;;) {
		int number = signals_wait();
		if (number == SIGTERM || number == SIGINT) {
			log_info("serve", "stopping on %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
			return;
		}
		log_info("serve", "SIGHUP: settings are read at start only; restart to change them");
	}
}

static enum err serve(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	const struct serve_args *args = p;
	struct daemon *d;
	TRY(lock_directory(args->config));
	raise_limits();
	signals_block();
	rpc_init();
	enum err err = daemon_start(args->config, &d);
	if (err == ERR_OK) {
		log_info("serve", "serving main=%s enrol=%s", daemon_address(d), daemon_enrolment_address(d));
		notify_ready();
		wait_for_end();
		notify_stopping();
		daemon_stop(d, GRACE_MS);
		log_info("serve", "stopped");
	}
	rpc_shutdown();
	return err;
}

static const struct cli_option options[] = {
	{"config", 'c', CLI_STRING, offsetof(struct serve_args, config), "FILE", "settings (DIR/" SETTINGS_FILE ")",
	 .required = true},
	{0},
};

const struct cli_command command_serve = {
	.name = "serve",
	.arguments = "",
	.summary = "run the coordinator in the foreground",
	.help = "Takes up the jobs that were running, and serves until SIGTERM or Ctrl-C; then waiting plants are "
		"told, running calls get ten\n"
		"seconds, and it exits with 0. Logs to stderr. Under systemd use Type=notify.\n\n"
		"Example:\n  hansad serve --config /var/lib/hansa/hansad.yaml\n",
	.options = options,
	.args_size = sizeof(struct serve_args),
	.run = serve,
};
