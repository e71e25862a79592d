/*
 * hansad init: a new federation in a directory.
 */
#include "base/clock.h"
#include "coordinator/commands.h"
#include "coordinator/federation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct init_args {
	const char *federation, *host, *listen, *enrol_listen;
};

/* "a,b,c" in place; *ret_n names, NULL-terminated. */
static enum err split_hosts(char *text, const char *out[CERT_HOSTS_MAX + 1])
{
	size_t n = 0;
	for (char *save, *host = strtok_r(text, ",", &save); host != NULL; host = strtok_r(NULL, ",", &save)) {
		if (n == CERT_HOSTS_MAX)
			return err_set(ERR_USAGE, "--host: at most %d names", CERT_HOSTS_MAX);
		out[n++] = host;
	}
	out[n] = NULL;
	return ERR_OK;
}

static void print_made(const char *dir, const struct settings *s)
{
	printf("Federation %s in %s:\n"
	       "  %s   settings; plants reach this machine as %s\n"
	       "  ca/           certificate authority: keep a copy of ca/key.pem in a safe place\n"
	       "  coordinator/  the coordinator's own key and certificate\n"
	       "  operator/     credential of the operator \"%s\", for hansactl\n"
	       "  log/          key that will sign the log\n"
	       "  hansa.db, models/, spool/\n"
	       "\nNext:\n"
	       "  hansad serve --config %s/%s\n"
	       "  hansactl --dir %s invite PLANT\n",
	       s->federation, dir, SETTINGS_FILE, s->advertise, FEDERATION_ADMIN, dir, SETTINGS_FILE, dir);
	if (strcmp(s->advertise, "localhost") == 0)
		printf("\nPlants are told \"localhost\": that works on this machine only. For others, init with --host "
		       "NAME.\n");
}

static enum err init(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct init_args *args = p;
	const char *hosts[CERT_HOSTS_MAX + 1] = {NULL};
	char path[PATH_SIZE];
	struct settings settings;
	char *host_list = mem_str(args->host != NULL ? args->host : "");
	struct federation_plan plan = {
		.name = args->federation, .listen = args->listen, .enrol_listen = args->enrol_listen, .hosts = hosts};
	enum err err = split_hosts(host_list, hosts);
	if (err == ERR_OK)
		err = federation_create(words[0], &plan, clock_wall_ms());
	free(host_list);
	TRY(err);
	TRY(settings_load(path_join(path, words[0], SETTINGS_FILE), &settings));
	print_made(words[0], &settings);
	settings_free(&settings);
	return ERR_OK;
}

static const struct cli_option options[] = {
	{"federation", 0, CLI_STRING, offsetof(struct init_args, federation), "NAME", "name of the federation (hansa)",
	 .required = false},
	{"host", 0, CLI_STRING, offsetof(struct init_args, host), "HOST",
	 "name or address of this machine, the one for plants first; may be repeated (localhost)", .required = false},
	{"listen", 0, CLI_STRING, offsetof(struct init_args, listen), "HOST:PORT",
	 "port for members (" SETTINGS_LISTEN ")", .required = false},
	{"enrol-listen", 0, CLI_STRING, offsetof(struct init_args, enrol_listen), "HOST:PORT",
	 "port for enrolment, or off (" SETTINGS_ENROL_LISTEN ")", .required = false},
	{0},
};

const struct cli_command command_init = {
	.name = "init",
	.arguments = "DIR",
	.summary = "make a new federation: certificate authority, keys, database, settings",
	.help = "Writes everything the coordinator needs into DIR (mode 0700) and changes nothing when there is a "
		"federation already. When it was\n"
		"interrupted, run it again. The hosts go into the coordinator's certificate; localhost, 127.0.0.1, ::1 "
		"and this machine's name are\n"
		"always in it. Plants are given the first one.\n\n"
		"Example:\n  hansad init /var/lib/hansa --federation bearings --host hansa.example.org\n",
	.options = options,
	.args_size = sizeof(struct init_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = init,
};
