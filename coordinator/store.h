/*
 * The model store: files by content. DIR/models/SHA256.safetensors; complete, synced and never changed once they have
 * that name. DIR/models/NAME.part is a model in the making.
 */
#ifndef HANSA_COORDINATOR_STORE_H
#define HANSA_COORDINATOR_STORE_H

#include "base/file.h"
#include "crypto/digest.h"

/* thread: any, except open and close. */
struct store;
/* Makes DIR/models; removes leftovers of a crash. */
MUST_CHECK enum err store_open(const char *dir, struct store **ret_store);
void store_close(struct store *s); /* after the last release; NULL is fine */

const char *store_path(const struct store *s, const struct digest *d, char out[PATH_SIZE]); /* returns out */
bool store_has(const struct store *s, const struct digest *d, uint64_t *ret_size /* may be NULL */);
/* A name for a model in the making, DIR/models/NAME.part. NAME: letters, digits, '-'; who writes at the same time takes
 * another one. */
const char *store_temp_path(const struct store *s, const char *name, char out[PATH_SIZE]);
/*
 * Take over a finished file made at a store_temp_path(): its digest is computed, and checked against `expected` when
 * not NULL (ERR_CORRUPT); it is synced and gets its name. When there is such a model already, it takes its place: the
 * content is the same. `temp_path` is gone afterwards, also on failure.
 */
MUST_CHECK enum err store_adopt(struct store *s, const char *temp_path, const struct digest *expected,
				struct digest *ret_digest, uint64_t *ret_size);
/* The same for a file whose writer vouches that these are the bytes it has written, and that they are synced (aggregate_run()): it only gets
 * its name. `temp_path` is gone afterwards, also on failure. */
MUST_CHECK enum err store_take(struct store *s, const char *temp_path, const struct digest *digest);

/* Absent is fine. Who has it mapped goes on reading. It may be there again after a crash: whoever decides what is kept decides again then. */
MUST_CHECK enum err store_remove(struct store *s, const struct digest *d);
/* Calls fn for each model, sorted by digest; it may remove them. The first error of fn ends it. */
typedef enum err (*store_fn)(void *arg, const struct digest *d);
MUST_CHECK enum err store_each(struct store *s, store_fn fn, void *arg);

/* A mapped model, shared by all who read it now. Release each acquire. ERR_NOT_FOUND. */
struct store_model;
MUST_CHECK enum err store_acquire(struct store *s, const struct digest *d, struct store_model **ret_model);
struct bytes store_content(const struct store_model *m);
void store_release(struct store *s, struct store_model *m); /* NULL is fine */

#endif
