#include "coordinator/plan.h"

#include "rpc/wire.h"

#include <stdlib.h>
#include <string.h>

struct plan *plan_share(struct plan *p)
{
	atomic_fetch_add(&p->users, 1);
	return p;
}

void plan_release(struct plan *p)
{
	if (p == NULL || atomic_fetch_sub(&p->users, 1) > 1)
		return;
	config_free(job_wire_rows, &p->config);
	manifest_free(p->manifest);
	buf_deinit(&p->config_text);
	buf_deinit(&p->manifest_text);
	free(p);
}

static struct plan *plan_new(void)
{
	struct plan *p = mem_new(sizeof *p);
	atomic_init(&p->users, 1);
	buf_init(&p->config_text, WIRE_CONFIG_MAX);
	buf_init(&p->manifest_text, WIRE_MANIFEST_MAX);
	return p;
}

static enum err read_config(struct plan *p, struct bytes config)
{
	TRY(config_from_canonical(job_wire_rows, config, &p->config));
	TRY(job_check(&p->config));
	TRY(buf_append(&p->config_text, config.p, config.n));
	p->config_hash = job_hash(config);
	return ERR_OK;
}

/* From an operator only the one canonical text is taken, so that a configuration has one hash. What is stored was canonical when it was
 * taken, perhaps by another release: there the hash is what counts. */
static enum err check_canonical(const struct plan *p, struct bytes config)
{
	struct buf text;
	buf_init(&text, WIRE_CONFIG_MAX);
	enum err err = config_canonical(job_wire_rows, &p->config, &text);
	if (err == ERR_OK && (text.n != config.n || memcmp(text.p, config.p, config.n) != 0))
		err = err_set(ERR_MALFORMED,
			      "the job's configuration is not in its canonical form; use a hansactl of this release");
	buf_deinit(&text);
	return err;
}

enum err plan_make(struct bytes config, const struct model *source, struct plan **ret_plan)
{
	struct plan *p = plan_new();
	enum err err = read_config(p, config);
	if (err == ERR_OK)
		err = check_canonical(p, config);
	if (err == ERR_OK)
		err = manifest_build(source, &p->config.train.freeze, &p->config.local, &p->manifest);
	if (err == ERR_OK)
		err = manifest_canonical(p->manifest, &p->manifest_text);
	if (err != ERR_OK) {
		plan_release(p);
		return err;
	}
	*ret_plan = p;
	return ERR_OK;
}

static enum err load(struct plan *p, struct bytes config, const struct digest *config_hash, struct bytes manifest)
{
	struct digest hash = job_hash(config);
	if (!digest_equal(&hash, config_hash))
		return err_set(ERR_CORRUPT, "the stored configuration does not have the hash that it was started with");
	if (read_config(p, config) != ERR_OK)
		return err_add(ERR_CORRUPT, "the stored configuration");
	if (manifest_parse(manifest, &p->manifest) != ERR_OK)
		return err_add(ERR_CORRUPT, "the stored manifest");
	return buf_append(&p->manifest_text, manifest.p, manifest.n);
}

enum err plan_load(struct bytes config, const struct digest *config_hash, struct bytes manifest, struct plan **ret_plan)
{
	struct plan *p = plan_new();
	enum err err = load(p, config, config_hash, manifest);
	if (err != ERR_OK) {
		plan_release(p);
		return err;
	}
	*ret_plan = p;
	return ERR_OK;
}
