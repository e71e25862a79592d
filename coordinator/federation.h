/*
 * A federation on disk: one directory, mode 0700.
 *
 *	hansad.yaml           settings (coordinator/settings.h); written last: a directory that has it is whole
 *	ca/                   the certificate authority's key and certificate
 *	coordinator/          credential of the coordinator itself
 *	operator/             credential of the operator "admin", for hansactl on this machine
 *	log/                  key.pem and public.pem of the log, Ed25519, apart from every TLS key
 *	hansa.db              members, jobs, rounds
 *	models/  spool/       model store; updates on their way
 */
#ifndef HANSA_COORDINATOR_FEDERATION_H
#define HANSA_COORDINATOR_FEDERATION_H

#include "certs/ca.h"
#include "certs/credential.h"
#include "coordinator/db.h"
#include "coordinator/registry.h"
#include "coordinator/settings.h"
#include "coordinator/store.h"

#include "base/file.h"

#define FEDERATION_ADMIN "admin"

/* What `hansad init` is told; NULL and 0: the default. */
struct federation_plan {
	const char *name; /* "hansa" */
	const char *listen, *enrol_listen;
	const char *const *hosts; /* names and addresses of this machine, the advertised one first; NULL-terminated */
};

/* Makes DIR. What an earlier try left half-made is completed. ERR_STATE: there is a federation already, or DIR holds something else. */
MUST_CHECK enum err federation_create(const char *dir, const struct federation_plan *plan, int64_t now_ms);

struct federation {
	char dir[PATH_SIZE];
	struct settings settings;
	struct credential credential; /* the coordinator's */
	struct ca *ca;                /* thread: one at a time; see enrol.h */
	struct db *db;
	struct store *store;
	struct registry *registry;
};

/* Opens the directory that the settings file is in, which the caller has locked (dir_lock). */
MUST_CHECK enum err federation_open(const char *settings_path, int64_t now_ms, struct federation *ret_federation);
/* Settings, CA and credential only, while another process may serve; the rest is NULL. */
MUST_CHECK enum err federation_read(const char *settings_path, int64_t now_ms, struct federation *ret_federation);
void federation_close(struct federation *f);

/* The certificate chain that a server shows: leaf, then CA. buf_init's it. */
MUST_CHECK enum err federation_chain(const struct federation *f, struct buf *ret_pem);

#endif
