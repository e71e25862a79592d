#include "coordinator/settings.h"

#include "base/file.h"
#include "crypto/address.h"
#include "crypto/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const levels[] = {"error", "warn", "info", "debug", NULL};

#define AT(member) offsetof(struct settings, member)

const struct config_row settings_rows[] = {
	{"federation", CONFIG_STRING, AT(federation), .required = true,
	 .help = "name of the federation, as in every certificate"},
	{"listen", CONFIG_STRING, AT(listen), .def = SETTINGS_LISTEN,
	 .help = "HOST:PORT for members; port 0: a free one"},
	{"enrol_listen", CONFIG_STRING, AT(enrol_listen), .def = SETTINGS_ENROL_LISTEN,
	 .help = "HOST:PORT for enrolment; off: closed"},
	{"advertise", CONFIG_STRING, AT(advertise), .required = true,
	 .help = "host name or address that plants reach this machine by"},
	{"workers", CONFIG_INT, AT(workers), .def = "16", .min = 2, .max = 256,
	 .help = "threads for calls that do work"},
	{"parked_max", CONFIG_INT, AT(parked_max), .def = "5000", .min = 1, .max = 100000,
	 .help = "calls that may wait at a time"},
	{"upload_bytes_max", CONFIG_INT, AT(upload_bytes_max), .def = "1073741824", .min = 4096, .max = 8589934592.0,
	 .help = "largest update or published model"},
	{"spool_bytes_max", CONFIG_INT, AT(spool_bytes_max), .def = "107374182400", .min = 1048576,
	 .max = 1125899906842624.0, .help = "bytes of all updates that are kept or on their way in"},
	{"disk_free_min", CONFIG_INT, AT(disk_free_min), .def = "268435456", .min = 0, .max = 1125899906842624.0,
	 .help = "bytes that updates and published models leave free on the disk"},
	{"hold", CONFIG_SECONDS, AT(hold), .def = "55s", .min = 1, .max = 100,
	 .help = "how long a call waits before \"nothing yet\""},
	{"drain", CONFIG_SECONDS, AT(drain), .def = "10s", .min = 0, .max = 600,
	 .help = "how long updates on their way in may take to end when the coordinator is stopped"},
	{"log_level", CONFIG_ENUM, AT(log_level), .def = "info", .names = levels, .help = "error, warn, info or debug"},
	{0},
};

const char *settings_address(const char *host, int port, char out[WIRE_ADDRESS_SIZE])
{
	bool ip6 = strchr(host, ':') != NULL;
	int n = snprintf(out, WIRE_ADDRESS_SIZE, "%s%s%s:%d", ip6 ? "[" : "", host, ip6 ? "]" : "", port);
	ENSURE(n > 0 && n < WIRE_ADDRESS_SIZE);
	return out;
}

bool settings_is_off(const char *listen)
{
	return strcmp(listen, "off") == 0;
}

/* Like an address, but port 0 is good: it stands for a free one. */
static enum err check_listen(const char *text)
{
	struct address address;
	size_t n = strlen(text);
	char *probe =
		n > 2 && strcmp(text + n - 2, ":0") == 0 ? mem_printf("%.*s:1", (int)(n - 2), text) : mem_str(text);
	enum err err = address_parse(probe, &address);
	free(probe);
	return err;
}

enum err settings_check(const struct settings *s)
{
	struct identity id;
	enum host_kind kind;
	char probe[WIRE_ADDRESS_SIZE];
	if (identity_make(ROLE_PLANT, s->federation, "plant", &id) != ERR_OK)
		return err_add(ERR_CONFIG, "federation");
	if (check_listen(s->listen) != ERR_OK)
		return err_add(ERR_CONFIG, "listen");
	if (!settings_is_off(s->enrol_listen) && check_listen(s->enrol_listen) != ERR_OK)
		return err_add(ERR_CONFIG, "enrol_listen");
	if (host_parse(s->advertise, &kind) != ERR_OK)
		return err_add(ERR_CONFIG, "advertise");
	if (strlen(s->advertise) + sizeof "[]:65535" > sizeof probe)
		return err_set(ERR_CONFIG, "advertise: longer than %zu characters", sizeof probe - sizeof "[]:65535");
	return ERR_OK;
}

enum err settings_load(const char *path, struct settings *ret_settings)
{
	struct settings s;
	TRY(config_load(settings_rows, path, &s));
	enum err err = settings_check(&s);
	if (err != ERR_OK) {
		settings_free(&s);
		return err_add(err, "%s", path);
	}
	*ret_settings = s;
	return ERR_OK;
}

void settings_free(struct settings *s)
{
	config_free(settings_rows, s);
}

static enum err write_row(const struct config_row *row, const struct settings *s, struct buf *out)
{
	const char *given = NULL;
	if (row->type == CONFIG_STRING) {
		char *text;
		memcpy(&text, (const char *)s + row->offset, sizeof text);
		given = text;
	}
	TRY(buf_printf(out, "\n# %s\n", row->help));
	if (given != NULL)
		return buf_printf(out, "%s: \"%s\"\n", row->key, given);
	const char *quote = row->type == CONFIG_STRING ? "\"" : "";
	return buf_printf(out, "#%s: %s%s%s\n", row->key, quote, row->def != NULL ? row->def : "", quote);
}

enum err settings_write(const char *path, const struct settings *s)
{
	struct buf text;
	buf_init(&text, 16 << 10);
	enum err err = buf_printf(
		&text, "# The coordinator's settings; `hansad check --config FILE` shows the effective ones.\n"
		       "# A line that begins with #key shows the default.\n");
	for (const struct config_row *row = settings_rows; err == ERR_OK && row->key != NULL; row++)
		err = write_row(row, s, &text);
	if (err == ERR_OK)
		err = file_replace(path, buf_bytes(&text), 0600);
	buf_deinit(&text);
	return err;
}
