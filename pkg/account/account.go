// Package account turns what an operator writes for a user, a name or a number, into the ids that the kernel knows.
// Both the command that prepares the proxy's directories and the proxy that drops to its own user ask it, so that they agree.
package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
)

// DefaultUser is the proxy's user where the machine has one of that name.
const DefaultUser = "sallyport"

// DefaultID is the proxy's uid and gid where the machine has no user DefaultUser. It needs no entry in /etc/passwd; it lies
// above what distributions hand out to people and services and below the ranges of container runtimes.
const DefaultID = 64817

// An Account is a user as the kernel knows it.
type Account struct {
	UID, GID int
	// Groups are the supplementary groups; empty for an id without an entry.
	Groups []int
	// Name and Home are "" for an id without an entry.
	Name, Home string
}

// Default is the account DefaultUser, or DefaultID where there is no such user.
func Default() (Account, error) {
	a, err := Lookup(DefaultUser)
	if isUnknown(err) {
		return Account{UID: DefaultID, GID: DefaultID}, nil
	}
	return a, err
}

// Lookup finds an account by name or by number. A number without an entry stands for itself, as uid and as gid.
// A name without an entry is a user.UnknownUserError.
func Lookup(nameOrID string) (Account, error) {
	id, notNumber := strconv.ParseUint(nameOrID, 10, 32)
	var entry *user.User
	var err error
	if notNumber != nil {
		entry, err = user.Lookup(nameOrID)
	} else {
		entry, err = user.LookupId(nameOrID)
		if isUnknown(err) {
			// All ones is the kernel's "leave unchanged"; setresuid(2).
			if id == 1<<32-1 {
				return Account{}, fmt.Errorf("user %s: not a user id", nameOrID)
			}
			return Account{UID: int(id), GID: int(id)}, nil
		}
	}
	if err != nil {
		return Account{}, fmt.Errorf("user %s: %w", nameOrID, err)
	}
	return fromEntry(entry)
}

// isUnknown is whether an error says that there is no such entry. A container may have no /etc/passwd at all.
func isUnknown(err error) bool {
	var name user.UnknownUserError
	var id user.UnknownUserIdError
	return errors.As(err, &name) || errors.As(err, &id) || errors.Is(err, fs.ErrNotExist)
}

func fromEntry(entry *user.User) (Account, error) {
	a := Account{Name: entry.Username, Home: entry.HomeDir}
	var err error
	if a.UID, err = strconv.Atoi(entry.Uid); err != nil {
		return Account{}, fmt.Errorf("user %s: uid %q: %w", entry.Username, entry.Uid, err)
	}
	if a.GID, err = strconv.Atoi(entry.Gid); err != nil {
		return Account{}, fmt.Errorf("user %s: gid %q: %w", entry.Username, entry.Gid, err)
	}
	ids, err := entry.GroupIds()
	if err != nil {
		return Account{}, fmt.Errorf("groups of user %s: %w", entry.Username, err)
	}
	for _, id := range ids {
		gid, err := strconv.Atoi(id)
		if err != nil {
			return Account{}, fmt.Errorf("user %s: group %q: %w", entry.Username, id, err)
		}
		a.Groups = append(a.Groups, gid)
	}
	return a, nil
}
