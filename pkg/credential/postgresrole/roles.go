package postgresrole

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
)

// make makes a role in one transaction: it is there with all its privileges, or not at all.
func (s *Source) make(ctx context.Context, r *role, req credential.Request, template v1alpha1.RoleTemplate) error {
	secret, err := verifier(r.password)
	if err != nil {
		return err
	}
	name := identifier(r.name)
	statements := []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT CONNECTION LIMIT %d PASSWORD %s VALID UNTIL %s",
			name, s.spec.ConnectionLimit, literal(secret), literal("epoch")),
		validUntil(r.name, min(s.ttl, validity)),
		fmt.Sprintf("ALTER ROLE %s SET application_name = %s", name, literal("sallyport/"+req.Workload)),
		fmt.Sprintf("COMMENT ON ROLE %s IS %s", name, literal(fmt.Sprintf("made by Sallyport for workload %s, target %s, session %s", req.Workload, req.Target, req.Session))),
	}
	statements = append(statements, grants(r.name, template)...)
	database := req.Database
	if database == "" {
		database = maintenance
	}
	return s.admin.in(ctx, database, func(c *adminConn) error {
		// One string is one transaction; a warning that nothing was granted has to undo it.
		if err := c.exec(ctx, append([]string{"BEGIN"}, statements...)...); err != nil {
			return errors.Join(err, c.exec(ctx, "ROLLBACK"))
		}
		if c.refused != nil {
			return errors.Join(c.refused, c.exec(ctx, "ROLLBACK"))
		}
		return c.exec(ctx, "COMMIT")
	})
}

// grants are the statements that give a role what a template says.
func grants(role string, t v1alpha1.RoleTemplate) []string {
	var statements []string
	name := identifier(role)
	for _, group := range t.MemberOf {
		statements = append(statements, fmt.Sprintf("GRANT %s TO %s", identifier(group), name))
	}
	schemas := map[string]bool{}
	use := func(schema string) {
		if !schemas[schema] {
			schemas[schema] = true
			statements = append(statements, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", identifier(schema), name))
		}
	}
	for i := range t.Grants {
		kind, objects := t.Grants[i].Objects()
		privileges := strings.Join(t.Grants[i].Privileges, ", ")
		for _, object := range objects {
			if kind == "schemas" {
				statements = append(statements, fmt.Sprintf("GRANT %s ON SCHEMA %s TO %s", privileges, identifier(object), name))
				continue
			}
			schema, object, _ := strings.Cut(object, ".")
			use(schema)
			on := map[string]string{"tables": "TABLE", "sequences": "SEQUENCE", "functions": "ROUTINE"}[kind]
			if object == "*" {
				statements = append(statements, fmt.Sprintf("GRANT %s ON ALL %sS IN SCHEMA %s TO %s", privileges, on, identifier(schema), name))
			} else {
				statements = append(statements, fmt.Sprintf("GRANT %s ON %s %s TO %s", privileges, on, identifier(schema, object), name))
			}
		}
	}
	return statements
}

// validUntil counts from the server's clock, which is the one that decides.
func validUntil(role string, validity time.Duration) string {
	return fmt.Sprintf("DO %s", literal(fmt.Sprintf(
		"BEGIN EXECUTE pg_catalog.format('ALTER ROLE %%I VALID UNTIL %%L', %s, pg_catalog.now() + interval '%d seconds'); END",
		literal(role), int(validity.Seconds()))))
}

// renew makes a role valid for so long from now.
func (a *admin) renew(ctx context.Context, role string, validity time.Duration) error {
	return a.in(ctx, maintenance, func(c *adminConn) error { return c.exec(ctx, validUntil(role, validity)) })
}

// drop ends a role's sessions and takes it away in every database; what it owned goes to the owner. A role that is not there is fine,
// also when somebody else drops it meanwhile.
func (a *admin) drop(ctx context.Context, role string) error {
	there, err := a.has(ctx, role)
	if err != nil || !there {
		return err
	}
	if err = a.take(ctx, role); err != nil {
		if there, failed := a.has(ctx, role); failed == nil && !there {
			return nil
		}
	}
	return err
}

func (a *admin) has(ctx context.Context, role string) (there bool, err error) {
	err = a.in(ctx, maintenance, func(c *adminConn) error {
		found, err := c.column(ctx, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", role)
		there = len(found) > 0
		return err
	})
	return there, err
}

// take takes away a role that is there.
func (a *admin) take(ctx context.Context, role string) error {
	var databases []string
	err := a.in(ctx, maintenance, func(c *adminConn) error {
		name := identifier(role)
		if err := c.exec(ctx, "ALTER ROLE "+name+" NOLOGIN", "GRANT "+name+" TO CURRENT_USER"); err != nil {
			return err
		}
		if err := c.end(ctx, role); err != nil {
			return err
		}
		var err error
		databases, err = c.column(ctx, `SELECT DISTINCT d.datname FROM pg_catalog.pg_shdepend s
			JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datallowconn
			WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
			AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)`, role)
		return err
	})
	if err != nil {
		return err
	}
	for _, database := range databases {
		err := a.in(ctx, database, func(c *adminConn) error {
			name := identifier(role)
			return c.exec(ctx, "REASSIGN OWNED BY "+name+" TO "+identifier(a.spec.Owner), "DROP OWNED BY "+name)
		})
		if err != nil {
			return fmt.Errorf("in database %s: %w", database, err)
		}
	}
	return a.in(ctx, maintenance, func(c *adminConn) error { return c.exec(ctx, "DROP ROLE IF EXISTS "+identifier(role)) })
}

// end terminates a role's sessions and waits for their end, so that they make nothing that would keep the role.
func (c *adminConn) end(ctx context.Context, role string) error {
	for {
		left, err := c.column(ctx, "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1", role)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sweep drops the roles that expired, but for those that somebody is just dropping, and says which.
func (a *admin) sweep(ctx context.Context) (dropped []string, err error) {
	var expired []string
	err = a.in(ctx, maintenance, func(c *adminConn) error {
		var err error
		expired, err = c.column(ctx, `SELECT rolname FROM pg_catalog.pg_roles
			WHERE rolname LIKE $1 AND rolvaliduntil < pg_catalog.now() - interval '1 minute'`, strings.ReplaceAll(prefix, "_", `\_`)+"%")
		return err
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, role := range expired {
		if err := a.drop(ctx, role); err != nil {
			errs = append(errs, fmt.Errorf("role %s: %w", role, err))
			continue
		}
		dropped = append(dropped, role)
	}
	return dropped, errors.Join(errs...)
}

func identifier(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// literal is a string constant; standard_conforming_strings may be off.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\x00", "").Replace(s) + "'"
}
