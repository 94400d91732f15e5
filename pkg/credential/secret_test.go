package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"
)

const plain = "correct horse battery staple"

// forms are what the bytes of plain look like under the verbs of fmt.
func forms() []string {
	return []string{
		plain, "correct", "99 111 114 114", "636f7272656374", "636F7272656374", "63 6f 72", "0x63, 0x6f", "[143 157",
		"Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ",
	}
}

func checkHidden(t *testing.T, how, printed string) {
	t.Helper()
	for _, form := range forms() {
		if strings.Contains(printed, form) {
			t.Errorf("%s prints the secret: %s", how, printed)
		}
	}
}

type holder struct {
	Exported   Secret
	unexported Secret
	pointer    *Secret
	Any        any
}

func newHolder() holder {
	secret := NewSecret([]byte(plain))
	return holder{Exported: secret, unexported: secret, pointer: &secret, Any: secret}
}

func TestNoVerbPrintsASecret(t *testing.T) {
	h := newHolder()
	lease := &Lease{Source: "orders", Username: "app", Password: h.Exported}
	values := map[string]any{
		"secret": h.Exported, "pointer": &h.Exported, "struct": h, "pointer to struct": &h, "slice": []Secret{h.Exported},
		"map": map[string]Secret{"k": h.Exported}, "lease": lease, "lease value": *lease,
	}
	for name, value := range values {
		for _, verb := range "vdsqxXobtTcUeEfFgGpw" {
			for _, flags := range []string{"", "+", "#", "-20", "0", " "} {
				format := "%" + flags + string(verb)
				checkHidden(t, name+" with "+format, fmt.Sprintf(format, value))
			}
		}
		checkHidden(t, name+" with Sprint", fmt.Sprint(value))
		checkHidden(t, name+" in an error", fmt.Errorf("login: %v", value).Error())
	}
	if got := fmt.Sprintf("%s %d %#v", h.Exported, h.Exported, h.Exported); got != "REDACTED REDACTED REDACTED" {
		t.Errorf("got %q", got)
	}
}

func TestNoEncoderPrintsASecret(t *testing.T) {
	h := newHolder()
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	checkHidden(t, "encoding/json", string(encoded))
	if !bytes.Contains(encoded, []byte(`"Exported":"REDACTED"`)) {
		t.Errorf("encoding/json printed %s", encoded)
	}
	if encoded, err = json.Marshal(map[string]any{"m": map[string]Secret{"k": h.Exported}}); err != nil {
		t.Fatal(err)
	}
	checkHidden(t, "encoding/json of a map", string(encoded))
	if encoded, err = yaml.Marshal(map[string]Secret{"k": h.Exported}); err != nil {
		t.Fatal(err)
	}
	if got := string(encoded); got != "k: REDACTED\n" {
		t.Errorf("yaml printed %q", got)
	}
}

func TestNoLoggerPrintsASecret(t *testing.T) {
	h := newHolder()
	var out bytes.Buffer
	for _, encoder := range []zapcore.Encoder{
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
	} {
		logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&out), zapcore.DebugLevel))
		logger.Info("zap", zap.Any("any", h.Exported), zap.Any("struct", h), zap.Reflect("reflect", h.Exported),
			zap.Stringer("stringer", h.Exported), zap.Object("object", h.Exported), zap.Inline(h.Exported),
			zap.Any("slice", []Secret{h.Exported}))
		logger.Sugar().Infof("%v %+v", h, h.pointer)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("slog", "secret", h.Exported, "struct", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("slog", "secret", h.Exported, "struct", h)
	checkHidden(t, "a logger", out.String())
	if !strings.Contains(out.String(), "REDACTED") {
		t.Errorf("nothing redacted in %s", out.String())
	}
}

func TestClearOverwritesTheBytesForAllCopies(t *testing.T) {
	value := []byte(plain)
	secret := NewSecret(value)
	other := secret
	if got := string(other.Reveal()); got != plain {
		t.Fatalf("revealed %q", got)
	}
	secret.Clear()
	other.Clear()
	if other.Reveal() != nil {
		t.Errorf("a copy still reveals %d bytes", len(other.Reveal()))
	}
	if !bytes.Equal(value, make([]byte, len(value))) {
		t.Errorf("the bytes were not overwritten")
	}
}

func TestZeroSecretRevealsNothing(t *testing.T) {
	var secret Secret
	secret.Clear()
	if secret.Reveal() != nil {
		t.Error("the zero Secret revealed something")
	}
	if got := fmt.Sprint(secret); got != "REDACTED" {
		t.Errorf("printed %q", got)
	}
}

type fixed struct{ lease *Lease }

func (f fixed) Issue(context.Context, Request) (*Lease, error) { return f.lease, nil }

func TestSourcesIssueByNameAndRefuseUnknownOnes(t *testing.T) {
	want := &Lease{Source: "orders"}
	sources := Sources{"orders": fixed{want}}
	if got, err := sources.Issue(context.Background(), "orders", Request{}); got != want || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	got, err := sources.Issue(context.Background(), "other", Request{})
	if got != nil || err == nil || errors.Unwrap(err) != nil || !strings.Contains(err.Error(), "credential source other") {
		t.Errorf("got %v, %v", got, err)
	}
}
