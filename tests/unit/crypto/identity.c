#include "crypto/identity.h"

#include "crypto/fixture.h"

#define L63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"
#define L64 L63 "1"

static const struct {
	const char *uri;
	enum role role;
	const char *federation, *name;
} good[] = {
	{"spiffe://example/plant/a", ROLE_PLANT, "example", "a"},
	{"spiffe://steel.example.org/plant/plant-7", ROLE_PLANT, "steel.example.org", "plant-7"},
	{"spiffe://f/operator/0", ROLE_OPERATOR, "f", "0"},
	{"spiffe://f-1/auditor/who-ever", ROLE_AUDITOR, "f-1", "who-ever"},
	{"spiffe://f/lab/plant", ROLE_LAB, "f", "plant"},
	{"spiffe://f/plant/coordinator", ROLE_PLANT, "f", "coordinator"},
	{"spiffe://plant/coordinator", ROLE_COORDINATOR, "plant", ""},
	{"spiffe://" L63 "/operator/" L63, ROLE_OPERATOR, L63, L63},
};

static void test_good(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct identity id, made;
		char text[IDENTITY_TEXT_SIZE];
		assert_ok(identity_parse(good[i].uri, strlen(good[i].uri), &id));
		assert_int_equal(id.role, good[i].role);
		assert_string_equal(id.federation, good[i].federation);
		assert_string_equal(id.name, good[i].name);
		assert_ptr_equal(identity_format(&id, text), text);
		assert_string_equal(text, good[i].uri);
		assert_ok(identity_make(good[i].role, good[i].federation, good[i].name, &made));
		assert_true(identity_equal(&id, &made));
	}
}

static const char *const bad[] = {
	"",
	"spiffe://",
	"spiffe:",
	"spiffe:///plant/a",
	"spiffe://f",
	"spiffe://f/",
	"spiffe://f/plant",
	"spiffe://f/plant/",
	"spiffe://f//a",
	"spiffe://f/plant/a/",
	"spiffe://f/plant/a/b",
	"spiffe://f/coordinator/",
	"spiffe://f/coordinator/a",
	"spiffe://f/lab",
	"spiffe://f/visitor/a",
	"spiffe://f/nobody/a",
	"spiffe://f/none/a",
	"spiffe://f/plants/a",
	"spiffe://f/plan/a",
	"http://f/plant/a",
	"https://f/plant/a",
	"SPIFFE://f/plant/a",
	"Spiffe://f/plant/a",
	"spiffe:/f/plant/a",
	"spiffe//f/plant/a",
	" spiffe://f/plant/a",
	"spiffe://f/plant/a ",
	"spiffe://f/plant/a\n",
	"spiffe://F/plant/a",
	"spiffe://f/Plant/a",
	"spiffe://f/plant/A",
	"spiffe://f/plant/a.b",
	"spiffe://f/plant/a_b",
	"spiffe://f/plant/-a",
	"spiffe://f/plant/a-",
	"spiffe://f/plant/-",
	"spiffe://-f/plant/a",
	"spiffe://f-/plant/a",
	"spiffe://.f/plant/a",
	"spiffe://f./plant/a",
	"spiffe://f_g/plant/a",
	"spiffe://f:443/plant/a",
	"spiffe://u@f/plant/a",
	"spiffe://f/plant/a?x",
	"spiffe://f/plant/a#x",
	"spiffe://f/plant/%61",
	"spiffe://f/plant/\xc3\xa4",
	"spiffe://" L64 "/plant/a",
	"spiffe://f/plant/" L64,
	"spiffe://" L64 "/operator/" L64 L64,
};

static void test_bad(void **state)
{
	(void)state;
	struct identity id, before;
	memset(&id, 0x5a, sizeof id);
	before = id;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (identity_parse(bad[i], strlen(bad[i]), &id) != ERR_MALFORMED)
			fail_msg("\"%s\" parses", bad[i]);
		assert_memory_equal(&id, &before, sizeof id);
	}
	/* A zero inside, and a text that goes on behind the given length. */
	static const char zero[] = "spiffe://f/plant/a\0b";
	assert_err(ERR_MALFORMED, identity_parse(zero, sizeof zero - 1, &id));
	assert_err(ERR_MALFORMED, identity_parse("spiffe://f/plant/a", 17, &id));
	assert_ok(identity_parse(zero, strlen(zero), &id));
}

/* Whatever parses is spelt in one way: every text one byte away from a good one either fails or formats to itself. */
static void test_one_spelling(void **state)
{
	(void)state;
	char text[64] = "spiffe://f-1.x/plant/a-1", out[IDENTITY_TEXT_SIZE];
	size_t n = strlen(text), parsed = 0;
	for (size_t i = 0; i < n; i++) {
		char was = text[i];
		for (int c = 0; c < 256; c++) {
			struct identity id;
			text[i] = (char)c;
			if (identity_parse(text, n, &id) != ERR_OK)
				continue;
			parsed++;
			assert_int_equal(strlen(identity_format(&id, out)), n);
			assert_memory_equal(out, text, n);
		}
		text[i] = was;
	}
	assert_true(parsed > n);
}

static void test_make(void **state)
{
	(void)state;
	struct identity id;
	assert_ok(identity_make(ROLE_COORDINATOR, "f", NULL, &id));
	assert_ok(identity_make(ROLE_COORDINATOR, "f", "", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_COORDINATOR, "f", "a", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT, "f", "", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT, "f", NULL, &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT, "", "a", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT, "f", "a/b", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_NONE, "f", "a", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_NOBODY, "f", "a", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT | ROLE_LAB, "f", "a", &id));
	assert_err(ERR_MALFORMED, identity_make(ROLE_PLANT, "f", L64, &id));
}

static void test_equal(void **state)
{
	(void)state;
	struct identity a = identity_of(ROLE_PLANT, "f", "a");
	struct identity others[] = {identity_of(ROLE_LAB, "f", "a"), identity_of(ROLE_PLANT, "g", "a"),
				    identity_of(ROLE_PLANT, "f", "b"), identity_of(ROLE_PLANT, "f", "aa"),
				    identity_of(ROLE_COORDINATOR, "f", NULL)};
	assert_true(identity_equal(&a, &a));
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		assert_false(identity_equal(&a, &others[i]));
}

static void test_roles(void **state)
{
	(void)state;
	static const char *const invited[] = {"plant", "operator", "auditor", "lab"};
	enum role role;
	for (size_t i = 0; i < sizeof invited / sizeof invited[0]; i++) {
		assert_ok(role_parse(invited[i], &role));
		assert_string_equal(role_name(role), invited[i]);
	}
	static const char *const refused[] = {"",      "coordinator", "none",   "nobody",
					      "Plant", "plant ",      "plants", "unknown"};
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
		assert_err(ERR_MALFORMED, role_parse(refused[i], &role));
	assert_string_equal(role_name(ROLE_COORDINATOR), "coordinator");
	assert_string_equal(role_name(ROLE_NOBODY), "nobody");
	assert_string_equal(role_name(ROLE_PLANT | ROLE_OPERATOR), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good), cmocka_unit_test(test_bad),   cmocka_unit_test(test_one_spelling),
		cmocka_unit_test(test_make), cmocka_unit_test(test_equal), cmocka_unit_test(test_roles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
