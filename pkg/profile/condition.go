package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

// Bounds of conditions. A unit of cost is about a comparison: the limit is a few milliseconds of one core.
const (
	maxConditions       = 20
	maxConditionText    = 2000
	maxConditionMessage = 300
	maxConditionCost    = 200_000 // of all conditions of a profile together
)

// condition is a compiled Condition.
type condition struct {
	field   string
	message string
	program cel.Program
	// open says that it looks at what is not known of a request before somebody decides on it: see Input.Undecided.
	open bool
}

// openVariables are what a decision brings: who makes it, and when.
var openVariables = []string{"requester", "role", "validity", "now", "notBefore", "notAfter"}

// environment declares what expressions see. It does not change once made.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	texts := cel.MapType(cel.StringType, cel.ListType(cel.StringType))
	return cel.NewEnv(
		cel.ParserRecursionLimit(50), cel.ParserExpressionSizeLimit(maxConditionText),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		cel.Variable("cn", cel.StringType),
		cel.Variable("subject", texts),
		cel.Variable("sans", texts),
		cel.Variable("keyAlgorithm", cel.StringType),
		cel.Variable("keyType", cel.StringType),
		cel.Variable("keyBits", cel.IntType),
		cel.Variable("requester", cel.StringType),
		cel.Variable("role", cel.StringType),
		cel.Variable("device", cel.StringType),
		cel.Variable("protocol", cel.StringType),
		cel.Variable("source", cel.StringType),
		cel.Variable("renewal", cel.BoolType),
		cel.Variable("validity", cel.DurationType),
		cel.Variable("now", cel.TimestampType),
		cel.Variable("notBefore", cel.TimestampType),
		cel.Variable("notAfter", cel.TimestampType),
		cel.Function("inNetwork", cel.Overload("in_network_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(inNetwork))),
	)
})

// inNetwork takes what is no address, such as the absent source of a request, as being in no network.
func inNetwork(address, network ref.Val) ref.Val {
	a, _ := address.Value().(string)
	n, _ := network.Value().(string)
	prefix, err := parseNetwork(n)
	if err != nil {
		return types.WrapErr(err)
	}
	addr, err := netip.ParseAddr(a)
	return types.Bool(err == nil && prefix.Contains(addr.Unmap()))
}

func (p *Profile) buildConditions(kindDefaults) error {
	if len(p.config.Conditions) > maxConditions {
		return badField("conditions", "more than %d", maxConditions)
	}
	var total uint64
	for i, c := range p.config.Conditions {
		field := fmt.Sprintf("conditions[%d]", i)
		if len([]rune(c.Message)) > maxConditionMessage {
			return badField(field+".message", "more than %d characters", maxConditionMessage)
		}
		if _, _, err := normalizeText(c.Message); err != nil {
			return badField(field+".message", "%v", err)
		}
		compiled, estimate, err := compile(c.Expr, sizes{names: uint64(p.sans.Max) + 2})
		if err != nil {
			return badField(field+".expr", "%v", err)
		}
		if total += min(estimate, maxConditionCost+1); total > maxConditionCost {
			return badField(field+".expr", "costs too much: up to %d, and all conditions together may cost %d", estimate, maxConditionCost).
				WithHint("compare each name once instead of with each other, shorten patterns, or lower sans.max")
		}
		compiled.field, compiled.message = field, c.Message
		if c.Message == "" {
			compiled.message = c.Expr
		}
		p.conditions = append(p.conditions, compiled)
	}
	return nil
}

// compile returns the condition, but for its field and message, and the most that it can cost.
func compile(expr string, s sizes) (c condition, most uint64, err error) {
	if strings.TrimSpace(expr) == "" {
		return c, 0, errors.New("an empty expression")
	}
	if len(expr) > maxConditionText {
		return c, 0, fmt.Errorf("more than %d octets", maxConditionText)
	}
	env, err := environment()
	if err != nil {
		return c, 0, fmt.Errorf("making the environment of expressions: %w", err)
	}
	checked, issues := env.Compile(expr)
	if issues.Err() != nil {
		e := issues.Errors()[0]
		return c, 0, fmt.Errorf("does not compile: line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, clipTo(e.Message, 300))
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return c, 0, fmt.Errorf("gives %s; a condition is true or false", checked.OutputType())
	}
	if c.open, err = checkShape(checked.NativeRep().Expr()); err != nil {
		return c, 0, err
	}
	estimate, err := env.EstimateCost(checked, s)
	if err != nil {
		return c, 0, fmt.Errorf("its cost cannot be estimated: %w", err)
	}
	c.program, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxConditionCost))
	if err != nil {
		return c, 0, fmt.Errorf("does not compile: %w", err)
	}
	return c, estimate.Max, nil
}

// checkShape refuses patterns and networks that are not written out: those of a requester could be anything. It also
// refuses what says the same of every request. open says that one of openVariables is looked at.
func checkShape(expr celast.Expr) (open bool, err error) {
	variables := false
	celast.PreOrderVisit(expr, celast.NewExprVisitor(func(e celast.Expr) {
		switch e.Kind() {
		case celast.IdentKind:
			variables = true
			open = open || slices.Contains(openVariables, e.AsIdent())
		case celast.CallKind:
			call := e.AsCall()
			args := call.Args()
			if name := call.FunctionName(); (name != "matches" && name != "inNetwork") || len(args) == 0 {
				return
			}
			last := args[len(args)-1]
			if last.Kind() != celast.LiteralKind {
				err = fmt.Errorf("%s takes a text that is written out", call.FunctionName())
			} else if text, ok := last.AsLiteral().Value().(string); ok && call.FunctionName() == "inNetwork" {
				if _, bad := parseNetwork(text); bad != nil {
					err = bad
				}
			}
		}
	}))
	if err == nil && !variables {
		err = errors.New("says the same of every request")
	}
	return open, err
}

// sizes are upper bounds of what expressions see, for the estimate of their cost.
type sizes struct{ names uint64 }

// EstimateSize implements cost.Estimator.
func (s sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := element.Path()
	if len(path) == 0 {
		return nil
	}
	size := uint64(256)
	switch {
	case path[0] == "sans" && len(path) == 1:
		size = uint64(len(sanKinds))
	case path[0] == "sans" && len(path) == 2 && path[1] != "@keys":
		size = s.names
	case path[0] == "sans" && path[1] == "uri":
		size = maxURI
	case path[0] == "sans" && path[1] == "upn":
		size = 1024
	case path[0] == "sans" && (path[1] == "@values" || path[1] == "@items"):
		size = maxURI
	case path[0] == "subject" && len(path) <= 2:
		size = maxSubjectAttributes + 1
	}
	return &cost.SizeEstimate{Max: size}
}

// EstimateCallCost implements cost.Estimator.
func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function == "inNetwork" {
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(10)}
	}
	return nil
}

// conditions refuses what a condition is not true of.
func (b *builder) conditions() error {
	if len(b.p.conditions) == 0 {
		return nil
	}
	variables := b.variables()
	for i := range b.p.conditions {
		c := &b.p.conditions[i]
		if c.open && b.in.Undecided {
			continue
		}
		result, _, err := c.program.Eval(variables)
		if err != nil {
			return fault.Wrap(fault.PolicyRefused, err, "%s of the profile %s cannot be told of this request: %s", c.field, b.p.Name(), clipTo(err.Error(), 200)).
				WithField("profile")
		}
		if result != types.True {
			return refused("profile", "the profile %s wants: %s", b.p.Name(), c.message)
		}
	}
	return nil
}

func (b *builder) variables() map[string]any {
	in, c := b.in, &b.c
	subject, names, cn := map[string][]string{}, map[string][]string{}, ""
	for i := range c.Subject {
		name := typeOf(c.Subject[i].Type).name
		subject[name] = append(subject[name], c.Subject[i].Value)
		if c.Subject[i].Type.Equal(pki.OIDCommonName) {
			cn = c.Subject[i].Value
		}
	}
	for _, kind := range sanKinds {
		names[kind] = []string{}
	}
	for i := range c.SANs {
		_, text, _ := strings.Cut(c.SANStrings[i], ":")
		kind := sanKindOf(&c.SANs[i])
		names[kind] = append(names[kind], text)
	}
	keyType, bits := "ecdsa", 0
	switch a := c.KeyAlgorithm; {
	case a.IsRSA():
		keyType, bits = "rsa", int(a)
	case a == keys.Ed25519:
		keyType, bits = "ed25519", 256
	case a == keys.P256:
		bits = 256
	case a == keys.P384:
		bits = 384
	case a == keys.P521:
		bits = 521
	}
	v := map[string]any{
		"subject": subject, "sans": names, "cn": cn,
		"keyAlgorithm": c.KeyAlgorithm.String(), "keyType": keyType, "keyBits": bits,
		"requester": in.Requester, "role": in.Role, "device": in.Device, "protocol": in.Protocol, "source": in.Source, "renewal": in.Renewal,
		// Ends too far off for a time.Duration become the longest one.
		"validity": c.NotAfter.Add(time.Second).Sub(in.Now.UTC().Truncate(time.Second)),
		"now":      in.Now.UTC(), "notBefore": c.NotBefore, "notAfter": c.NotAfter,
	}
	return v
}

// sanKindOf returns the name that configurations have for the kind of a name.
func sanKindOf(n *der.GeneralName) string {
	switch n.Tag {
	case der.TagDNSName:
		return "dns"
	case der.TagIPAddress:
		return "ip"
	case der.TagRFC822Name:
		return "email"
	case der.TagURI:
		return "uri"
	case der.TagOtherName:
		switch {
		case isUPN(n):
			return "upn"
		case isHardwareModule(n):
			return "hardwareModuleName"
		}
	}
	return ""
}

// clipTo is clip with another limit.
func clipTo(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
