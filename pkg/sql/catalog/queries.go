package catalog

// begin gives all queries one snapshot and makes their texts mean what they say here, whatever the role's settings. Names that
// are deparsed come out qualified, because nothing but pg_catalog is in the path.
const begin = `BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL row_security = on;
SET LOCAL lock_timeout = '500ms';
SET LOCAL statement_timeout = '20s'`

// relationKinds are those that can be named in FROM, and composite types.
const relationKinds = `('r', 'p', 'v', 'm', 'f', 'S', 't', 'c')`

const selectRelations = `SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltype, coalesce(o.oid, 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class o ON c.relkind = 't' AND o.reltoastrelid = c.oid
WHERE c.relkind IN ` + relationKinds

const selectColumns = `SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ` + relationKinds + ` ORDER BY a.attrelid, a.attnum`

const selectInheritance = `SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY inhrelid, inhseqno`

const selectReferences = `SELECT DISTINCT conrelid, confrelid FROM pg_catalog.pg_constraint WHERE contype = 'f'`

const selectRules = `SELECT DISTINCT ev_class FROM pg_catalog.pg_rewrite WHERE ev_type <> '1'`

// selectTriggers knows BEFORE … FOR EACH ROW and INSTEAD OF by bits (TRIGGER_TYPE_ROW and others in pg_trigger.h of PostgreSQL).
const selectTriggers = `SELECT tgrelid, tgfoid, tgtype & 3 = 3, tgtype & 64 <> 0 FROM pg_catalog.pg_trigger WHERE NOT tgisinternal`

// selectDomainChecks are the constraints of domains.
const selectDomainChecks = `SELECT contypid, pg_catalog.pg_get_expr(conbin, 0) FROM pg_catalog.pg_constraint WHERE contype = 'c' AND contypid <> 0`

// selectTypes takes the column of pg_range that names a range's multirange, which came with PostgreSQL 14.
const selectTypes = `SELECT t.oid, n.nspname, t.typname,
  CASE WHEN t.typtype = 'b' AND EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.typarray = t.oid) THEN 'a' ELSE t.typtype END,
  CASE t.typtype WHEN 'd' THEN t.typbasetype WHEN 'r' THEN r.rngsubtype WHEN 'm' THEN m.rngtypid ELSE t.typelem END,
  t.typarray, t.typtypmod, t.typrelid, t.typdelim,
  CASE WHEN t.typtype = 'd' THEN pg_catalog.pg_get_expr(t.typdefaultbin, 0) END
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_range r ON t.typtype = 'r' AND r.rngtypid = t.oid
LEFT JOIN pg_catalog.pg_range m ON t.typtype = 'm' AND m.%s = t.oid`

const selectLabels = `SELECT enumtypid, enumlabel FROM pg_catalog.pg_enum ORDER BY enumtypid, enumsortorder`

// selectFunctions takes the expression for a body in the SQL standard's form, which came with PostgreSQL 14.
const selectFunctions = `SELECT p.oid, n.nspname, p.proname, p.prokind, l.lanname, p.provolatile, p.prorettype, p.proretset,
  coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes, p.proargnames, p.provariadic <> 0,
  CASE WHEN p.oid >= 16384 THEN pg_catalog.pg_get_expr(p.proargdefaults, 0) END,
  CASE WHEN p.oid >= 16384 THEN p.prosrc END, CASE WHEN p.oid >= 16384 THEN %s END, p.proconfig, e.extname
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  AND d.refclassid = 'pg_catalog.pg_extension'::regclass
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid`

const selectAggregates = `SELECT aggfnoid::oid, ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn,
  aggminvtransfn, aggmfinalfn]::oid[] FROM pg_catalog.pg_aggregate WHERE aggfnoid::oid >= 16384`

const selectOperators = `SELECT n.nspname, o.oprname, o.oprleft, o.oprright, o.oprcode::oid FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384`

const selectOperatorNames = `SELECT DISTINCT oprname FROM pg_catalog.pg_operator`

const selectCasts = `SELECT castsource, casttarget, castfunc, castcontext = 'i' FROM pg_catalog.pg_cast WHERE castfunc >= 16384`

// What is deparsed takes locks on the relations that it is of, for as long as the transaction lasts. Each query has a list of OIDs of
// relations to be put into it.
const (
	selectViews = `SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c
WHERE c.relkind IN ('v', 'm') AND c.oid = ANY ('{%[1]s}')`

	selectDefaults = `SELECT adrelid, adnum, pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef WHERE adrelid = ANY ('{%[1]s}')`

	selectChecks = `SELECT conrelid, pg_catalog.pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint
WHERE contype = 'c' AND conrelid = ANY ('{%[1]s}')
UNION ALL SELECT polrelid, pg_catalog.pg_get_expr(polqual, polrelid) FROM pg_catalog.pg_policy WHERE polrelid = ANY ('{%[1]s}')
UNION ALL SELECT polrelid, pg_catalog.pg_get_expr(polwithcheck, polrelid) FROM pg_catalog.pg_policy WHERE polrelid = ANY ('{%[1]s}')`
)

// selectDeparsed are the relations of which there is something to deparse.
const selectDeparsed = `SELECT oid FROM pg_catalog.pg_class WHERE relkind IN ('v', 'm')
UNION SELECT adrelid FROM pg_catalog.pg_attrdef UNION SELECT polrelid FROM pg_catalog.pg_policy
UNION SELECT conrelid FROM pg_catalog.pg_constraint WHERE contype = 'c' AND conrelid <> 0`

// selectMarker sums what every change raises: a transaction's number is larger than those of all rows that it can find, so rows that
// it changes or replaces raise the sum, and the count tells of those that it only adds or removes.
const selectMarker = `SELECT pg_catalog.string_agg(n || ':' || x, ' ' ORDER BY t) FROM (
          SELECT 1, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_class
UNION ALL SELECT 2, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_attribute
UNION ALL SELECT 3, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_proc
UNION ALL SELECT 4, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_type
UNION ALL SELECT 5, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_rewrite
UNION ALL SELECT 6, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_inherits
UNION ALL SELECT 7, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_constraint
UNION ALL SELECT 8, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_attrdef
UNION ALL SELECT 9, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_policy
UNION ALL SELECT 10, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_operator
UNION ALL SELECT 11, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_cast
UNION ALL SELECT 12, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_aggregate
UNION ALL SELECT 13, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_enum
UNION ALL SELECT 14, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_namespace
UNION ALL SELECT 15, count(*), sum(xmin::text::bigint) FROM pg_catalog.pg_extension
UNION ALL SELECT 16, count(*), coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.pg_trigger
) AS m(t, n, x)`
