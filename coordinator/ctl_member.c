/*
 * hansactl invite, revoke, plants.
 */
#include "base/config.h"
#include "base/table.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- invite ---- */

struct invite_args {
	struct ctl_args ctl;
	const char *role, *valid;
};

struct valid {
	int64_t ms;
};

static const struct config_row valid_rows[] = {
	{"valid", CONFIG_SECONDS, offsetof(struct valid, ms), .def = "24h", .min = 60, .max = 30 * 24 * 3600,
	 .help = "how long the code is good"},
	{0},
};

/* Times are written as in configurations, and read by what reads those. */
static enum err read_valid(const char *text, uint64_t *ret_ms)
{
	struct valid valid;
	struct yaml *yaml = NULL;
	char *line = text != NULL ? mem_printf("valid: %s", text) : mem_str("{}");
	enum err err = yaml_parse("--valid", bytes_str(line), &yaml);
	if (err == ERR_OK)
		err = config_read(valid_rows, yaml_root(yaml), &valid);
	yaml_free(yaml);
	free(line);
	if (err != ERR_OK)
		return err_set(ERR_USAGE,
			       "--valid: expected a time from 1m to 30d, such as 90m, 24h or 7d, not '%.40s'", text);
	*ret_ms = (uint64_t)valid.ms;
	return ERR_OK;
}

static enum err read_role(const char *text, enum role *ret_role)
{
	if (role_parse(text != NULL ? text : "plant", ret_role) != ERR_OK)
		return err_set(ERR_USAGE, "--role: %.40s is not one of plant, operator, auditor, lab", text);
	return ERR_OK;
}

static enum err read_name(const char *word, char out[WIRE_NAME_SIZE])
{
	struct identity id;
	/* The coordinator judges again; here for a clear message. */
	if (identity_make(ROLE_PLANT, "federation", word, &id) != ERR_OK)
		return err_set(
			ERR_USAGE,
			"%.63s: a name is 1 to 63 of a-z, 0-9 and '-', and begins and ends with a letter or digit",
			word);
	snprintf(out, WIRE_NAME_SIZE, "%s", word);
	return ERR_OK;
}

static enum err print_invitation(const struct invite_args *args, const struct wire_invite_request *asked,
				 const struct wire_invite_reply *given)
{
	char when[CTL_TEXT_SIZE];
	if (args->ctl.json) {
		struct json *v = json_map();
		json_put(v, "name", json_str(asked->name));
		json_put(v, "role", json_str(role_name(asked->role)));
		json_put(v, "code", json_str(given->code));
		json_put(v, "expires", ctl_time_json(given->expires_ms));
		return ctl_print_json(v);
	}
	fprintf(stderr,
		"Join code for %s %s, good once, until %s. It is a secret until it is used. On the other machine:\n  "
		"hansa enroll JOIN-CODE --dir DIR\n",
		role_name(asked->role), asked->name, ctl_time(given->expires_ms, when));
	printf("%s\n", given->code);
	return ERR_OK;
}

static enum err invite(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct invite_args *args = p;
	struct wire_invite_request asked = {.role = ROLE_PLANT};
	struct wire_invite_reply given;
	struct buf request, reply = {0};
	struct ctl ctl;
	TRY(read_name(words[0], asked.name));
	TRY(read_role(args->role, &asked.role));
	TRY(read_valid(args->valid, &asked.valid_ms));
	TRY(ctl_open(args->ctl.dir, &ctl));
	buf_init(&request, 1024);
	enum err err = wire_invite_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = ctl_call(&ctl, METHOD_INVITE, &request, &reply);
	if (err == ERR_OK)
		err = wire_invite_reply_unpack(buf_bytes(&reply), &given);
	if (err == ERR_OK)
		err = print_invitation(args, &asked, &given);
	buf_deinit(&request);
	buf_deinit(&reply);
	ctl_close(&ctl);
	return err;
}

static const struct cli_option invite_options[] = {
	CTL_DIR_OPTION,
	{"role", 0, CLI_STRING, offsetof(struct invite_args, role), "ROLE", "plant, operator, auditor or lab (plant)",
	 .required = false},
	{"valid", 0, CLI_STRING, offsetof(struct invite_args, valid), "TIME",
	 "how long the code is good, such as 90m, 24h, 7d (24h)", .required = false},
	CTL_JSON_OPTION,
	{0},
};

const struct cli_command command_invite = {
	.name = "invite",
	.arguments = "NAME",
	.summary = "make a join code for a plant (or another role)",
	.help = "Prints the join code, and nothing else, on stdout. It names the coordinator, pins its certificate "
		"authority and holds a secret that\n"
		"is good once. A new code for the same name takes the place of an unused one.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa invite bremen --valid 7d\n",
	.options = invite_options,
	.args_size = sizeof(struct invite_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = invite,
};

/* ---- revoke ---- */

struct revoke_args {
	struct ctl_args ctl;
	const char *role;
};

static enum err revoke(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct revoke_args *args = p;
	struct wire_revoke_request asked = {.role = ROLE_PLANT};
	struct buf request, reply = {0};
	struct ctl ctl;
	TRY(read_name(words[0], asked.name));
	TRY(read_role(args->role, &asked.role));
	TRY(ctl_open(args->ctl.dir, &ctl));
	buf_init(&request, 1024);
	enum err err = wire_revoke_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = ctl_call(&ctl, METHOD_REVOKE, &request, &reply);
	if (err == ERR_OK)
		printf("revoked %s %s\n", role_name(asked.role), asked.name);
	buf_deinit(&request);
	buf_deinit(&reply);
	ctl_close(&ctl);
	return err;
}

static const struct cli_option revoke_options[] = {
	CTL_DIR_OPTION,
	{"role", 0, CLI_STRING, offsetof(struct revoke_args, role), "ROLE", "plant, operator, auditor or lab (plant)",
	 .required = false},
	{0},
};

const struct cli_command command_revoke = {
	.name = "revoke",
	.arguments = "NAME",
	.summary = "take a member's access away, at once, and its open invitation",
	.help = "Works from the member's next call on, also on connections that are open. Updates that have been "
		"accepted stay; rounds no longer wait\n"
		"for the plant. It can be invited again, and enrols with a new key then.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa revoke bremen\n",
	.options = revoke_options,
	.args_size = sizeof(struct revoke_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = revoke,
};

/* ---- plants ---- */

static enum err print_members(const struct wire_members *members, bool json)
{
	if (json) {
		struct json *list = json_list();
		for (size_t i = 0; i < members->n; i++) {
			const struct wire_member *m = &members->v[i];
			struct json *row = json_map();
			json_put(row, "name", json_str(m->name));
			json_put(row, "role", json_str(role_name(m->role)));
			json_put(row, "state", json_str(m->state));
			json_put(row, "expires", ctl_time_json(m->expires_ms));
			json_put(row, "seen", ctl_time_json(m->seen_ms));
			json_put(row, "software", json_str(m->software));
			json_push(list, row);
		}
		return ctl_print_json(list);
	}
	struct table *t = table_new("name|role|state|valid until|last seen|software");
	struct buf text;
	buf_init(&text, 16 << 20);
	for (size_t i = 0; i < members->n; i++) {
		const struct wire_member *m = &members->v[i];
		char expires[CTL_TEXT_SIZE], seen[CTL_TEXT_SIZE];
		table_row(t, "%s|%s|%s|%s|%s|%s", m->name, role_name(m->role), m->state,
			  ctl_time(m->expires_ms, expires), ctl_time(m->seen_ms, seen),
			  m->software[0] != '\0' ? m->software : "-");
	}
	enum err err = table_write(t, &text);
	if (err == ERR_OK)
		printf("%s", buf_str(&text));
	buf_deinit(&text);
	table_free(t);
	return err;
}

static enum err plants(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	const struct ctl_args *args = p;
	struct wire_members members = {.n = 0};
	struct buf request, reply = {0};
	struct ctl ctl;
	TRY(ctl_open(args->dir, &ctl));
	buf_init(&request, 16); /* an empty message */
	enum err err = ctl_call(&ctl, METHOD_LIST_PLANTS, &request, &reply);
	if (err == ERR_OK)
		err = wire_members_unpack(buf_bytes(&reply), &members);
	if (err == ERR_OK)
		err = print_members(&members, args->json);
	wire_members_free(&members);
	buf_deinit(&request);
	buf_deinit(&reply);
	ctl_close(&ctl);
	return err;
}

static const struct cli_option plants_options[] = {CTL_DIR_OPTION, CTL_JSON_OPTION, {0}};

const struct cli_command command_plants = {
	.name = "plants",
	.arguments = "",
	.summary = "who is invited, enrolled or revoked, and when each was last here",
	.help = "Example:\n  hansactl --dir /var/lib/hansa plants\n",
	.options = plants_options,
	.args_size = sizeof(struct ctl_args),
	.run = plants,
};
