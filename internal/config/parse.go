package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of one file. What is over them is refused before it is read.
const (
	// MaxFileSize is the most bytes of one file.
	MaxFileSize = 1 << 20
	maxDepth    = 50
	// maxNodes bounds what aliases can blow a file up to.
	maxNodes = 200_000
	// maxInline bounds the openers of one line before the parser, which
	// recurses, sees them.
	maxInline = 100
	maxIndent = 1000
)

// parseYAML reads one file into nodes. It returns nil when the file is empty,
// or when it cannot be read, which is then among the findings.
func parseYAML(file string, src []byte, out *findings) *node {
	top := place{file: file, line: 1, col: 1}
	if len(src) > MaxFileSize {
		out.fail(top, "", "split it: several -f files are merged", fmt.Sprintf("cannot read a file of %d bytes; the limit is %d", len(src), MaxFileSize))
		return nil
	}
	if !utf8.Valid(src) {
		out.fail(invalidAt(file, src), "", "save the file as UTF-8", "cannot read the file: it is not UTF-8")
		return nil
	}
	if strings.TrimSpace(string(src)) == "" {
		return nil
	}
	if at, why := tooDeep(file, src); why != "" {
		out.fail(at, "", "write it flatter", why)
		return nil
	}
	tree, err := parseTree(src)
	if err != nil {
		at, message := syntaxError(file, err)
		out.fail(at, "", syntaxHint(message), "cannot read this as YAML: "+message)
		return nil
	}
	if len(tree.Docs) > 1 {
		for _, doc := range tree.Docs[1:] {
			if doc.Body != nil {
				out.fail(tokenPlace(file, doc.Body.GetToken()), "", "use several files with -f", "cannot read more than one document from a file")
				return nil
			}
		}
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil
	}
	c := &converter{file: file, out: out, anchors: map[string]ast.Node{}}
	return c.convert(tree.Docs[0].Body, top, 0)
}

// parseTree calls the parser. A panic in it is an error of the file for us:
// nothing of ours has been changed by then.
func parseTree(src []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	return parser.Parse(lexer.Tokenize(string(src)), 0, parser.AllowDuplicateMapKey())
}

func invalidAt(file string, src []byte) place {
	line, col := 1, 1
	for len(src) > 0 {
		r, n := utf8.DecodeRune(src)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if col++; r == '\n' {
			line, col = line+1, 1
		}
		src = src[n:]
	}
	return place{file: file, line: line, col: col}
}

// tooDeep counts what makes the parser recurse, roughly and from above: open
// brackets anywhere, markers of lists, keys, tags and anchors within a line,
// and the indent. In JSON only brackets do, however much stands in a line.
func tooDeep(file string, src []byte) (place, string) {
	line, col, open, marks, indent, lead := 1, 0, 0, 0, 0, true
	isJSON := json.Valid(src)
	for i, b := range src {
		col++
		switch b {
		case '\n':
			line, col, marks, indent, lead = line+1, 0, 0, 0, true
			continue
		case '[', '{':
			open++
		case ']', '}':
			open = max(0, open-1)
		case '-', '?', '!', '&', ':':
			if i+1 < len(src) && (b == '!' || b == '&' || src[i+1] == ' ' || src[i+1] == '\t') {
				marks++
			}
		}
		if lead = lead && b == ' '; lead {
			indent++
		}
		if open > maxInline || !isJSON && (indent > maxIndent || marks > 10*maxInline) {
			return place{file: file, line: line, col: col}, "cannot read a file that is nested so deep"
		}
	}
	return place{}, ""
}

func syntaxError(file string, err error) (place, string) {
	at := place{file: file, line: 1, col: 1}
	var se *yaml.SyntaxError
	if errors.As(err, &se) {
		if se.Token != nil {
			at = tokenPlace(file, se.Token)
		}
		return at, se.Message
	}
	return at, err.Error()
}

func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "tab") || strings.Contains(message, "\\t"):
		return "indent with spaces, not with tabs"
	case strings.Contains(message, "mapping value is not allowed") || strings.Contains(message, "mapping was used"):
		return "put text that holds \": \" in quotes, and check the indent"
	case strings.Contains(message, "quot"):
		return "close the quote"
	}
	return "check the indent, the quotes and the brackets here"
}

func tokenPlace(file string, t *token.Token) place {
	at := place{file: file, line: 1, col: 1}
	if t != nil && t.Position != nil {
		at.line, at.col = max(1, t.Position.Line), max(1, t.Position.Column)
	}
	return at
}

// converter makes nodes of the parser's tree.
type converter struct {
	file    string
	out     *findings
	anchors map[string]ast.Node
	busy    []string // anchors being followed
	count   int
	stopped bool
}

func (c *converter) stop(at place, hint, message string) *node {
	if !c.stopped {
		c.stopped = true
		c.out.fail(at, "", hint, message)
	}
	return &node{at: at}
}

func (c *converter) convert(n ast.Node, at place, depth int) *node {
	if c.count++; c.count > maxNodes {
		return c.stop(at, "use fewer aliases", fmt.Sprintf("cannot read a file that unfolds to more than %d values", maxNodes))
	}
	if depth > maxDepth {
		return c.stop(at, "write it flatter", fmt.Sprintf("cannot read a file that is nested more than %d deep", maxDepth))
	}
	if c.stopped || n == nil {
		return &node{at: at}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return c.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.SequenceNode:
		return c.sequence(n, at, depth)
	case *ast.AnchorNode:
		if n.Name != nil {
			c.anchors[n.Name.GetToken().Value] = n.Value
		}
		return c.convert(n.Value, at, depth+1)
	case *ast.AliasNode:
		return c.alias(n, depth)
	case *ast.TagNode:
		at := tokenPlace(c.file, n.Start)
		if tag := n.Start.Value; tag == "!!str" {
			v := c.convert(n.Value, at, depth+1)
			if v.kind != kindMap && v.kind != kindList {
				v.kind, v.quoted = kindText, true
			}
			return v
		}
		c.out.fail(at, "", "remove the tag", fmt.Sprintf("cannot use the tag %s here", n.Start.Value))
		return c.convert(n.Value, at, depth+1)
	}
	return c.scalar(n)
}

func (c *converter) scalar(n ast.Node) *node {
	t := n.GetToken()
	out := &node{at: tokenPlace(c.file, t), text: t.Value}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = kindNull
	case *ast.BoolNode:
		out.kind = kindBool
	case *ast.IntegerNode:
		out.kind = kindInt
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind = kindFloat
	case *ast.StringNode:
		out.kind, out.text = kindText, n.Value
		out.quoted = t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		out.kind, out.quoted = kindText, true
		if n.Value != nil {
			out.text = n.Value.Value
		}
		out.at = tokenPlace(c.file, n.Start)
	default:
		c.out.fail(out.at, "", "write text, a number, a list or a map", "cannot read a "+strings.ToLower(n.Type().String())+" here")
	}
	return out
}

func (c *converter) sequence(n *ast.SequenceNode, at place, depth int) *node {
	out := &node{kind: kindList, at: at, items: make([]*node, 0, len(n.Values))}
	for _, v := range n.Values {
		here := at
		if v != nil {
			here = nodePlace(c.file, v)
		}
		out.items = append(out.items, c.convert(v, here, depth+1))
	}
	return out
}

// nodePlace is where a node begins: a map begins at its first key.
func nodePlace(file string, n ast.Node) place {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return tokenPlace(file, v.Values[0].Key.GetToken())
		}
	case *ast.MappingValueNode:
		return tokenPlace(file, v.Key.GetToken())
	}
	return tokenPlace(file, n.GetToken())
}

func (c *converter) alias(n *ast.AliasNode, depth int) *node {
	at := tokenPlace(c.file, n.Start)
	name := n.Value.GetToken().Value
	target, ok := c.anchors[name]
	if !ok {
		return c.stop(at, "define it above with &"+name, fmt.Sprintf("cannot find an anchor %q", name))
	}
	for _, b := range c.busy {
		if b == name {
			return c.stop(at, "remove the alias", fmt.Sprintf("cannot use the anchor %q within itself", name))
		}
	}
	c.busy = append(c.busy, name)
	defer func() { c.busy = c.busy[:len(c.busy)-1] }()
	return c.convert(target, at, depth+1)
}

func (c *converter) mapping(values []*ast.MappingValueNode, at place, depth int) *node {
	out := &node{kind: kindMap, at: at}
	own := make(map[string]place, len(values))
	var merged []*node
	for _, v := range values {
		here := tokenPlace(c.file, v.Key.GetToken())
		if v.Key.IsMergeKey() {
			merged = append(merged, c.mergeKey(v.Value, here, depth)...)
			continue
		}
		key, ok := c.key(v.Key, here)
		if !ok {
			continue
		}
		if first, twice := own[key]; twice {
			c.out.fail(here, "", "remove one of them", fmt.Sprintf("the key %q stands here for the second time; it is already in line %d", key, first.line))
			continue
		}
		own[key] = here
		valueAt := here
		if v.Value != nil && v.Value.Type() != ast.NullType {
			if p := nodePlace(c.file, v.Value); p.line > here.line || p.col > here.col {
				valueAt = p
			}
		}
		if v.Value != nil && (v.Value.Type() == ast.MappingType || v.Value.Type() == ast.MappingValueType) {
			valueAt = here
		}
		out.entries = append(out.entries, entry{key: key, at: here, value: c.convert(v.Value, valueAt, depth+1)})
	}
	for _, m := range merged {
		for _, e := range m.entries {
			if _, has := own[e.key]; !has {
				own[e.key] = e.at
				out.entries = append(out.entries, e)
			}
		}
	}
	return out
}

func (c *converter) key(k ast.MapKeyNode, at place) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	case *ast.MappingKeyNode:
		if s, ok := k.Value.(*ast.StringNode); ok {
			return s.Value, true
		}
	case *ast.AnchorNode:
		if s, ok := k.Value.(*ast.StringNode); ok {
			return s.Value, true
		}
	}
	c.out.fail(at, "", "write a plain word", "cannot use this as a key")
	return "", false
}

// mergeKey returns the maps that "<<:" names, the strongest first.
func (c *converter) mergeKey(v ast.Node, at place, depth int) []*node {
	n := c.convert(v, at, depth+1)
	maps := []*node{n}
	if n.kind == kindList {
		maps = n.items
	}
	for _, m := range maps {
		if m.kind != kindMap {
			if !c.stopped {
				c.out.fail(at, "", "write <<: *name, or a list of them", "cannot merge "+m.kind.String()+" into a map")
			}
			return nil
		}
	}
	return maps
}
