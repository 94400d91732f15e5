package lineage

import "strings"

// refused are functions of the server that read or write more than their arguments: they run text as SQL, read tables by name, files, the
// write-ahead log, or large objects. What follows the last dot of a name with * is any.
var refused = []string{
	"query_to_xml*", "cursor_to_xml*", "table_to_xml*", "schema_to_xml*", "database_to_xml*",
	"ts_stat", "pg_read_file*", "pg_read_binary_file*", "pg_logical_slot_*", "pg_stat_get_backend_activity",
	"lo_*", "loread", "lowrite", "be_lo_*", "pg_extension_config_dump",
}

// isRefused is whether a function of the server must not be called where columns are masked. name may be its C symbol.
func isRefused(name string) bool {
	for _, pattern := range refused {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(name, prefix) || pattern == name {
			return true
		}
	}
	return false
}

// silent are functions of the server whose results tell nothing of what their arguments contain but how many there are.
var silent = set("count", "regr_count", "pg_typeof", "num_nulls", "num_nonnulls", "row_number", "pg_collation_for")

// choosing are functions of the server whose result is their first argument's value as it is, in one row or another.
var choosing = set("min", "max", "any_value", "first_value", "last_value", "nth_value", "lag", "lead", "percentile_disc", "mode")

// forgetful are volatile functions of the server that keep nothing of their arguments. With others a masked argument could be read back:
// from a sequence, a setting, a lock, a notification.
var forgetful = set("array_shuffle", "array_sample", "pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size",
	"pg_relation_filenode", "pg_relation_filepath", "random", "random_normal", "pg_stat_file", "pg_ls_dir")

// telling are columns of results of functions of the server that hold text of statements, with what users typed.
var telling = map[string]string{"pg_stat_get_activity": "query"}

// harmless are extensions whose functions in C do nothing but with their arguments, although some are not IMMUTABLE: they depend on a
// setting or dictionary.
var harmless = set("citext", "hstore", "pg_trgm", "uuid-ossp", "pgcrypto", "btree_gin", "btree_gist", "ltree", "intarray", "fuzzystrmatch",
	"unaccent", "isn", "cube", "earthdistance", "seg", "postgis", "vector")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}
