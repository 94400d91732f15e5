package account

import (
	"errors"
	"os/user"
	"testing"
)

func TestNamesAndNumbersBecomeTheIdsOfTheKernel(t *testing.T) {
	tests := []struct {
		name, in string
		uid, gid int
		wantErr  bool
	}{
		{name: "a name with an entry", in: "root", uid: 0, gid: 0},
		{name: "a number with an entry", in: "0", uid: 0, gid: 0},
		{name: "a number without an entry stands for itself", in: "64817", uid: 64817, gid: 64817},
		{name: "a name without an entry", in: "no-such-user-here", wantErr: true},
		{name: "an empty name", in: "", wantErr: true},
		{name: "a negative number", in: "-1", wantErr: true},
		{name: "the number that means unchanged", in: "4294967295", wantErr: true},
		{name: "a number beyond 32 bits", in: "4294967296", wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Lookup(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v, want an error: %v", err, tt.wantErr)
			}
			if err == nil && (got.UID != tt.uid || got.GID != tt.gid) {
				t.Errorf("got %d:%d, want %d:%d", got.UID, got.GID, tt.uid, tt.gid)
			}
		})
	}
}

func TestDefaultNeedsNoEntry(t *testing.T) {
	got, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := user.Lookup(DefaultUser)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		if got.UID != DefaultID || got.GID != DefaultID {
			t.Errorf("got %d:%d, want %d for both", got.UID, got.GID, DefaultID)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != entry.Username {
		t.Errorf("got %q, want %q", got.Name, entry.Username)
	}
}
