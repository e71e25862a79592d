#include "base/fixture.h"

#include "base/file.h"
#include "base/yaml.h"

static struct yaml *parsed(const char *text)
{
	struct yaml *y = NULL;
	if (yaml_parse("t.yaml", bytes_str(text), &y) != ERR_OK)
		fail_msg("%s", err_text());
	return y;
}

static void assert_refused_bytes(struct bytes text, const char *message)
{
	struct yaml *y = NULL;
	uint8_t *copy = mem_new(text.n);
	if (text.n > 0)
		memcpy(copy, text.p, text.n);
	assert_int_equal(yaml_parse("t.yaml", bytes_of(copy, text.n), &y), ERR_CONFIG);
	free(copy);
	assert_null(y);
	if (strstr(err_text(), message) == NULL)
		fail_msg("'%s' does not hold '%s'", err_text(), message);
}

static void assert_refused(const char *text, const char *message)
{
	assert_refused_bytes(bytes_str(text), message);
}

static void test_tree(void **state)
{
	(void)state;
	struct yaml *y = parsed("# plant\n"
				"name: lübeck\n"
				"train:\n"
				"  epochs: 3\n"
				"  layers: [a, 'b', \"c\"]\n"
				"\n"
				"note: |\n"
				"  two\n"
				"  lines\n"
				"empty:\n"
				"<<: plain\n");
	const struct yaml_node *root = yaml_root(y);
	assert_int_equal(root->kind, YAML_MAP);
	assert_int_equal(root->n, 5);
	assert_string_equal(root->file, "t.yaml");
	assert_int_equal(root->line, 2);
	assert_string_equal(yaml_get(root, "name")->text, "lübeck");
	assert_false(yaml_get(root, "name")->quoted);
	const struct yaml_node *train = yaml_get(root, "train");
	assert_int_equal(train->kind, YAML_MAP);
	assert_string_equal(train->keys[0], "epochs");
	assert_int_equal(train->key_lines[0], 4);
	assert_int_equal(train->key_lines[1], 5);
	const struct yaml_node *layers = yaml_get(train, "layers");
	assert_int_equal(layers->kind, YAML_LIST);
	assert_int_equal(layers->n, 3);
	assert_int_equal(layers->items[2]->line, 5);
	assert_false(layers->items[0]->quoted);
	assert_true(layers->items[1]->quoted && layers->items[2]->quoted);
	assert_string_equal(layers->items[2]->text, "c");
	assert_string_equal(yaml_get(root, "note")->text, "two\nlines\n");
	assert_true(yaml_get(root, "note")->quoted);
	assert_string_equal(yaml_get(root, "empty")->text, "");
	assert_string_equal(yaml_get(root, "<<")->text, "plain");
	assert_null(yaml_get(root, "none"));
	assert_null(yaml_get(layers, "a"));
	assert_null(yaml_get(NULL, "a"));
	yaml_free(y);
	yaml_free(NULL);
}

static void test_no_document(void **state)
{
	(void)state;
	static const char *const texts[] = {"", "# only a comment\n", "\n\n"};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct yaml *y = parsed(texts[i]);
		assert_int_equal(yaml_root(y)->kind, YAML_MAP);
		assert_int_equal(yaml_root(y)->n, 0);
		yaml_free(y);
	}
	struct yaml *y = parsed("--- 5\n");
	assert_int_equal(yaml_root(y)->kind, YAML_SCALAR);
	assert_string_equal(yaml_root(y)->text, "5");
	yaml_free(y);
}

static void test_refused(void **state)
{
	(void)state;
	assert_refused("a: 1\nb: &x 2\n", "t.yaml:2: anchors");
	assert_refused("a: &x [1]\n", "t.yaml:1: anchors");
	assert_refused("a: &x {b: 1}\n", "t.yaml:1: anchors");
	assert_refused("a: *x\n", "t.yaml:1: aliases");
	assert_refused("a: !!int 5\n", "t.yaml:1: tags");
	assert_refused("a: ! 5\n", "t.yaml:1: tags");
	assert_refused("a:\n  !x\n  - 1\n", "tags");
	assert_refused("!x\na: 1\n", "tags");
	assert_refused("%TAG !e! tag:e.com,2000:\n---\na: 1\n", "tags");
	assert_refused("a: 1\n---\nb: 2\n", "t.yaml:2: a second document");
	assert_refused("a: 1\nb: 2\nc: 3\nb: 4\n", "t.yaml:4: duplicate key 'b' (first in line 2)");
	assert_refused("x:\n  - {a: 1, 'a': 2}\n", "t.yaml:2: duplicate key 'a'");
	assert_refused("[1]: 2\n", "t.yaml:1: a key must be a word");
	assert_refused("? {a: 1}\n: 2\n", "a key must be a word");
	assert_refused("a: \"x\\0y\"\n", "t.yaml:1: a text must not hold a zero byte");
	assert_refused("\"x\\0y\": 1\n", "zero byte");
	assert_refused("a: 1\nb: [1\nc: 2\n", "t.yaml:");
	assert_refused("a: 1\n\tb: 2\n", "t.yaml:2:");
	assert_refused("a: b: c\n", "t.yaml:1:");
	assert_refused("a: 1\nb: '\n", "t.yaml:");
}

static void test_refused_bytes(void **state)
{
	(void)state;
	assert_refused("a: 1\nb: 2\nc: \xff\n", "t.yaml:3: ");
	assert_refused("a: \xc0\xaf\n", "t.yaml:1: ");
	assert_refused("a: \xed\xa0\x80\n", "t.yaml:1: ");
	assert_refused("a: x\x01y\n", "t.yaml:1: ");
	assert_refused_bytes(bytes_of("a: x\0y\n", 7), "t.yaml:1: ");
	assert_refused_bytes(bytes_of("a: 1\n\0", 6), "t.yaml:");
	/* UTF-16 is somebody's Windows editor; it is refused rather than guessed. */
	assert_refused_bytes(bytes_of("\xff\xfe"
				      "a\0:\0 \0001\0",
				      10),
			     "t.yaml:1: ");
}

static char *nested(int levels)
{
	char *text = mem_new(2 * (size_t)levels + 2);
	memset(text, '[', (size_t)levels);
	memset(text + levels, ']', (size_t)levels);
	return text;
}

static void test_levels(void **state)
{
	(void)state;
	char *text = nested(16);
	yaml_free(parsed(text));
	free(text);
	text = nested(17);
	assert_refused(text, "t.yaml:1: nested deeper than 16 levels");
	free(text);
	text = nested(200000);
	assert_refused(text, "nested deeper than 16 levels");
	free(text);
}

static void test_nodes(void **state)
{
	(void)state;
	struct buf text;
	buf_init(&text, 1 << 20);
	/* The list itself is one. */
	for (int i = 0; i < 19999; i++)
		assert_int_equal(buf_printf(&text, "- %d\n", i), ERR_OK);
	yaml_free(parsed(buf_str(&text)));
	assert_int_equal(buf_printf(&text, "- x\n"), ERR_OK);
	assert_refused(buf_str(&text), "t.yaml:20000: more than 20000 values");
	buf_deinit(&text);
}

static void test_many_keys(void **state)
{
	(void)state;
	struct buf text;
	buf_init(&text, 1 << 20);
	for (int i = 0; i < 9999; i++)
		assert_int_equal(buf_printf(&text, "k%d: %d\n", i * 7919 % 9999, i), ERR_OK);
	struct yaml *y = parsed(buf_str(&text));
	assert_int_equal(yaml_root(y)->n, 9999);
	assert_string_equal(yaml_root(y)->keys[1], "k7919");
	assert_string_equal(yaml_get(yaml_root(y), "k7919")->text, "1");
	yaml_free(y);
	buf_deinit(&text);
}

static void test_size(void **state)
{
	(void)state;
	enum { MAX = 1 << 20 };
	char *text = mem_new(MAX + 2);
	memset(text, ' ', MAX + 1);
	memcpy(text, "a: 1\n#", 6);
	assert_refused_bytes(bytes_of(text, MAX + 1), "t.yaml:1: larger than 1048576 bytes");
	struct yaml *y;
	assert_int_equal(yaml_parse("t.yaml", bytes_of(text, MAX), &y), ERR_OK);
	yaml_free(y);
	free(text);
}

static void test_load(void **state)
{
	(void)state;
	char *dir = scratch_make(), path[PATH_SIZE], message[PATH_SIZE + 20];
	struct yaml *y = NULL;
	path_join(path, dir, "c.yaml");
	assert_int_equal(yaml_load(path, &y), ERR_NOT_FOUND);
	assert_int_equal(file_replace(path, bytes_str("a: 1\n"), 0644), ERR_OK);
	assert_int_equal(yaml_load(path, &y), ERR_OK);
	assert_string_equal(yaml_root(y)->file, path);
	yaml_free(y);
	y = NULL;
	assert_int_equal(file_replace(path, bytes_str("a: 1\na: 2\n"), 0644), ERR_OK);
	assert_int_equal(yaml_load(path, &y), ERR_CONFIG);
	snprintf(message, sizeof message, "%s:2: duplicate", path);
	assert_memory_equal(err_text(), message, strlen(message));
	char *big = mem_new((1 << 20) + 2);
	memset(big, '#', (1 << 20) + 1);
	assert_int_equal(file_replace(path, bytes_str(big), 0644), ERR_OK);
	assert_int_equal(yaml_load(path, &y), ERR_CONFIG);
	assert_null(y);
	free(big);
	scratch_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tree),      cmocka_unit_test(test_no_document),
		cmocka_unit_test(test_refused),   cmocka_unit_test(test_refused_bytes),
		cmocka_unit_test(test_levels),    cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_many_keys), cmocka_unit_test(test_size),
		cmocka_unit_test(test_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
