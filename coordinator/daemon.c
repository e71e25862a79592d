/*
 * Order of starting: what holds state first, then the engine's thread, then the ports, and last the address that operators read. Order of
 * stopping: waiting calls are answered, the servers drain (updates on their way in can still be committed), then the engine, then the state.
 */
#include "coordinator/daemon.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/service.h"

#include <stdio.h>
#include <stdlib.h>

static const int64_t warn_ms = 30 * 24 * 3600 * INT64_C(1000); /* before the certificate expires */

struct daemon {
	struct federation federation;
	struct service service;
	struct rpc_server *main, *enrolment;
	char address[WIRE_ADDRESS_SIZE], enrolment_address[WIRE_ADDRESS_SIZE];
};

static void warn_of_expiry(const struct federation *f)
{
	char when[CLOCK_TEXT_SIZE];
	int64_t end = cert_not_after_ms(f->credential.cert);
	if (end - clock_wall_ms() < warn_ms)
		log_warn("serve", "the coordinator's certificate expires on %s", clock_format(end, when));
}

static enum err open_engine(struct daemon *d)
{
	struct federation *f = &d->federation;
	struct engine_config config = {
		.dir = f->dir,
		.federation = f->settings.federation,
		.db = f->db,
		.store = f->store,
		.registry = f->registry,
		.upload_bytes_max = (uint64_t)f->settings.upload_bytes_max,
		.spool = {.bytes_max = (uint64_t)f->settings.spool_bytes_max,
			  .free_min = (uint64_t)f->settings.disk_free_min},
		.hold_ms = f->settings.hold,
	};
	TRY(engine_open(&config, &d->service.engine));
	d->service.federation = f;
	d->service.enrol = enrol_new(f);
	return engine_start(d->service.engine);
}

static enum err listen_main(struct daemon *d, struct bytes chain)
{
	const struct federation *f = &d->federation;
	struct rpc_server_config config = {
		.name = "main",
		.listen = f->settings.listen,
		.key_pem = buf_bytes(&f->credential.key_pem),
		.cert_pem = chain,
		.ca_pem = buf_bytes(&f->credential.ca_pem),
		.client_certificates = true,
		.federation = f->settings.federation,
		.workers = (size_t)f->settings.workers,
		.parked_max = (size_t)f->settings.parked_max,
		.handlers = service_main_handlers,
		.authorize = service_authorize,
		.gone = service_gone,
		.ctx = &d->service,
	};
	TRY(rpc_server_start(&config, &d->main));
	settings_address(f->settings.advertise, rpc_server_port(d->main), d->address);
	return ERR_OK;
}

static enum err listen_enrolment(struct daemon *d, struct bytes chain)
{
	const struct federation *f = &d->federation;
	struct rpc_server_config config = {
		.name = "enrol",
		.listen = f->settings.enrol_listen,
		.key_pem = buf_bytes(&f->credential.key_pem),
		.cert_pem = chain,
		.ca_pem = buf_bytes(&f->credential.ca_pem),
		.federation = f->settings.federation,
		.workers = 2,
		.parked_max = 1,
		.handlers = service_enrol_handlers,
		.ctx = &d->service,
	};
	snprintf(d->enrolment_address, sizeof d->enrolment_address, "off");
	if (settings_is_off(f->settings.enrol_listen))
		return ERR_OK;
	TRY(rpc_server_start(&config, &d->enrolment));
	settings_address(f->settings.advertise, rpc_server_port(d->enrolment), d->enrolment_address);
	return ERR_OK;
}

/* The operator's credential may have been moved to another machine, as it should be; and no plant has to wait because it is in disorder. */
static void tell_operator(const struct daemon *d)
{
	char path[PATH_SIZE];
	path_join(path, d->federation.dir, "operator");
	if (file_exists(path) && credential_set_address(path, d->address) != ERR_OK)
		log_warn("serve", "%s: writing this coordinator's address: %s", path, err_text());
}

static enum err serve(struct daemon *d)
{
	struct buf chain;
	TRY(open_engine(d));
	TRY(federation_chain(&d->federation, &chain));
	enum err err = listen_main(d, buf_bytes(&chain));
	if (err == ERR_OK)
		err = listen_enrolment(d, buf_bytes(&chain));
	buf_deinit(&chain);
	TRY(err);
	enrol_set_addresses(d->service.enrol, d->address, d->enrolment != NULL ? d->enrolment_address : NULL);
	tell_operator(d);
	return ERR_OK;
}

enum err daemon_start(const char *settings_path, struct daemon **ret_daemon)
{
	struct daemon *d = mem_new(sizeof *d);
	enum err err = federation_open(settings_path, clock_wall_ms(), &d->federation);
	if (err != ERR_OK) {
		free(d);
		return err;
	}
	log_set_level((enum log_level)d->federation.settings.log_level);
	warn_of_expiry(&d->federation);
	err = serve(d);
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		daemon_stop(d, 0);
		err_set(err, "%s", text);
		free(text);
		return err;
	}
	*ret_daemon = d;
	return ERR_OK;
}

static int64_t left_ms(int64_t until_ms)
{
	int64_t now = clock_monotonic_ms();
	return now < until_ms ? until_ms - now : 0;
}

void daemon_stop(struct daemon *d, long grace_ms)
{
	if (d == NULL)
		return;
	int64_t until_ms = clock_monotonic_ms() + grace_ms;
	if (d->service.engine != NULL)
		engine_drain(d->service.engine);
	if (d->main != NULL)
		rpc_server_stop(d->main, grace_ms);
	if (d->enrolment != NULL)
		rpc_server_stop(d->enrolment, left_ms(until_ms));
	engine_close(d->service.engine);
	enrol_free(d->service.enrol);
	federation_close(&d->federation);
	free(d);
}

long daemon_drain_ms(const struct daemon *d)
{
	return (long)d->federation.settings.drain;
}

enum err daemon_check(struct daemon *d)
{
	return engine_check(d->service.engine);
}

enum err daemon_reload(struct daemon *d, const char *settings_path)
{
	struct settings s;
	TRY(settings_load(settings_path, &s));
	d->federation.settings.log_level = s.log_level;
	log_set_level((enum log_level)s.log_level);
	settings_free(&s);
	return ERR_OK;
}

const char *daemon_address(const struct daemon *d)
{
	return d->address;
}

const char *daemon_enrolment_address(const struct daemon *d)
{
	return d->enrolment_address;
}
