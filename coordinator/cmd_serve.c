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
#include "coordinator/watchdog.h"
#include "rpc/client.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CLOSE_MS = 60000 /* for what comes after the drain: a step that the engine is at */ };

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

/* A connection costs a file descriptor, and so does an update that is being received; the usual soft limit of 1024 is far below parked_max. */
static void raise_limits(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) != 0)
		log_warn("serve", "cannot raise the limit of open files");
}

static void reload(struct daemon *d, const char *config)
{
	notify_reloading();
	if (daemon_reload(d, config) == ERR_OK)
		log_info("serve", "SIGHUP: log_level is taken up from %s; other settings at the next start", config);
	else
		log_warn("serve", "SIGHUP: nothing is changed: %s", err_text());
	notify_ready();
}

static void wait_for_end(struct daemon *d, const char *config)
{
	for (int number = signals_wait(); number == SIGHUP; number = signals_wait())
		reload(d, config);
	log_info("serve", "stopping; updates on their way in get %.0f s, a second signal stops at once",
		 (double)daemon_drain_ms(d) / 1000);
}

/* Nothing is lost by ending like this: it is what a power cut does, only politer. */
static void *stop_at_once(void *arg)
{
	(void)arg;
	while (signals_wait() == SIGHUP)
		continue;
	log_info("serve", "stopped at once, by a second signal");
	_exit(0);
}

static void stop(struct daemon *d)
{
	pthread_t second;
	if (pthread_create(&second, NULL, stop_at_once, NULL) == 0)
		pthread_detach(second);
	daemon_stop(d, daemon_drain_ms(d));
	log_info("serve", "stopped");
}

static enum err check(void *daemon)
{
	return daemon_check(daemon);
}

static enum err run(struct daemon *d, const char *config)
{
	struct watchdog *watchdog = NULL;
	int64_t watchdog_ms = notify_watchdog_ms();
	log_info("serve", "serving main=%s enrol=%s", daemon_address(d), daemon_enrolment_address(d));
	notify_ready();
	/* Half the time that is allowed, as sd_watchdog_enabled(3) recommends. */
	enum err err = watchdog_ms > 0 ? watchdog_start(watchdog_ms / 2, check, d, notify_alive, &watchdog) : ERR_OK;
	if (err == ERR_OK)
		wait_for_end(d, config);
	notify_stopping(daemon_drain_ms(d) + CLOSE_MS);
	watchdog_stop(watchdog);
	stop(d);
	return err;
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
	if (err == ERR_OK)
		err = run(d, args->config);
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
		"told, updates on their\n"
		"way in get the time that the settings call `drain`, and it exits with 0; a second signal stops at "
		"once, which loses nothing either.\n"
		"SIGHUP takes up a new log_level. Logs to stderr. Under systemd: Type=notify, with WatchdogSec if "
		"wanted.\n\n"
		"Example:\n  hansad serve --config /var/lib/hansa/hansad.yaml\n",
	.options = options,
	.args_size = sizeof(struct serve_args),
	.run = serve,
};
