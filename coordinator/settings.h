/*
 * DIR/hansad.yaml: what an operator can set about the coordinator.
 */
#ifndef HANSA_COORDINATOR_SETTINGS_H
#define HANSA_COORDINATOR_SETTINGS_H

#include "base/config.h"
#include "base/log.h"
#include "rpc/wire.h"

#define SETTINGS_FILE         "hansad.yaml"
#define SETTINGS_LISTEN       "0.0.0.0:7433"
#define SETTINGS_ENROL_LISTEN "0.0.0.0:7434"

struct settings {
	char *federation;
	char *listen, *enrol_listen; /* HOST:PORT; enrol_listen may be "off" */
	char *advertise;             /* host of the address that plants are given */
	int64_t workers, parked_max, upload_bytes_max;
	int64_t spool_bytes_max, disk_free_min;
	int64_t hold, drain; /* ms */
	int log_level;       /* enum log_level */
};

extern const struct config_row settings_rows[];

MUST_CHECK enum err settings_load(const char *path, struct settings *ret_settings); /* checked; ERR_CONFIG */
MUST_CHECK enum err settings_check(const struct settings *s); /* what the table cannot say; ERR_CONFIG */
bool settings_is_off(const char *listen);
void settings_free(struct settings *s);
/* The file's text with comments; what is not given stands there with its default. */
MUST_CHECK enum err settings_write(const char *path, const struct settings *s);

/* "HOST:PORT" of a host and a port; hosts that are IPv6 addresses get brackets. */
const char *settings_address(const char *host, int port, char out[WIRE_ADDRESS_SIZE]);

#endif
