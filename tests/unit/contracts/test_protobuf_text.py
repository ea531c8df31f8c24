"""The parser of `.proto` text, against Protobuf's own compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.protobuf import messages, parse
from postline.contracts.protobuf_text import parse_text
from postline.errors import ContractError
from tests.unit.contracts.protobuf_samples import (
    bare,
    compiled,
    descriptor_pb2,
    imported,
)


def proto_files() -> list[Path]:
    """Files of Protobuf that were installed with packages."""
    packages = Path(descriptor_pb2.__file__).parents[2]
    found = [*packages.glob("google/[artl]*/*.proto"), *packages.glob("grpc_tools/_proto/google/protobuf/*.proto")]
    return sorted(each for each in found if "edition" not in each.read_text(encoding="utf-8").partition(";")[0])


@pytest.mark.parametrize("path", proto_files(), ids=lambda each: f"{each.parent.name}/{each.name}")
def test_real_files_are_parsed_as_by_the_compiler(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert bare(parse_text(text, imported)) == compiled(text, tmp_path)


TRICKY = """
/* begin */ syntax = 'pro' "to3"; // end
package shop.v1;
import public "google/protobuf/timestamp.proto";
option java_package = "x;}";
option (custom).deep = { a: "}" b: [1, 2] };
message Order {
  option deprecated = true;
  reserved 4, 9 to 11, 100 to max;
  reserved "old", "older";
  Line first = 0x1; repeated .shop.v1.Order.Line lines = 02 [deprecated = true, (rule).size = { min: 1 }];
  message Line {
    message Line { string message = 1; } Line line = 1; Order order = 2;
    enum Kind { A = 0; B = -1; } Kind enum = 3;
  }
  map<string, Line.Line> by_name_of = 3;
  oneof choice { string text = 5; Line.Kind kind = 6; google.protobuf.Timestamp at = 7; }
  optional bytes optional = 8;
  ;
  repeated sint32 _odd_Name2x = 12 [packed = false];
  Status status = 13;
}
enum Status { option deprecated = false; reserved 5; OPEN = 0 [deprecated = true]; CLOSED = 0x10; };
service Orders { rpc Get (Order) returns (stream Order) { option (x) = "}"; } }
"""


def test_the_corners_of_the_language_are_parsed_as_by_the_compiler(tmp_path: Path) -> None:
    text = TRICKY.replace("option (custom).deep", "// ").replace(", (rule).size = { min: 1 }", "")
    text = text.replace('option (x) = "}";', "")
    assert bare(parse_text(text, imported)) == compiled(text, tmp_path)
    # The compiler wants custom options declared; they are passed over.
    assert bare(parse_text(TRICKY, imported)) == bare(parse_text(text, imported))


def test_defaults_of_proto2_are_parsed_as_by_the_compiler(tmp_path: Path) -> None:
    text = """message Old {
      enum Kind { FIRST = 3; SECOND = 1; }
      optional int32 a = 1 [default = -5]; optional string b = 2 [default = "a\\"b\\x41\\101\\n"];
      optional bool c = 3 [default = true]; optional Kind d = 4 [default = SECOND]; required string e = 5;
      repeated int32 f = 6 [packed = true]; extensions 100 to 199; oneof g { string h = 7; }
    }
    extend Old { optional string more = 100; }"""
    assert bare(parse_text(text, imported)) == compiled(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "declares no message"),
        ('syntax = "proto3";', "declares no message"),
        ('syntax = "proto4"; message M {}', "line 1: there is no syntax 'proto4'"),
        ('edition = "2023";\nmessage M {}', "line 1: editions are not read"),
        ("\n\nmessage M {", "line 3: a name is missing before 'the end'"),
        ("message M {} }", "line 1: '}' can't stand there"),
        ("message M {\n optional group G = 1 {}\n}", "line 2: groups are not read"),
        ("message M { string a = 1; }", "the field a has no label, which proto2 wants"),
        ("message M { optional string a; }", "'=' is missing before ';'"),
        ("message M { optional string a = x; }", "a number is missing before 'x'"),
        ("message M { optional string a = 0; }", "0 is not from 1 to 536,870,911"),
        ("message M { optional string a = 536870912; }", "536870912 is not from 1"),
        ("message M { optional string a = 1 [default = ", "ends in the midst of a statement"),
        ("message M { optional string a = 1 [", "ends in the midst of a statement"),
        ("message M { option x = { a: [ ", "ends in the midst of a statement"),
        ("message M { optional Missing a = 1; }", "M.a is of the type Missing, which the .proto does not declare"),
        ('import "other.proto"; message M {}', "imports other.proto, which is not at hand"),
        ('import "google/protobuf/../x.proto"; message M {}', "not at hand"),
        ("message M { /* never ends", "line 1: '/\\* never e' is no Protobuf"),
        ("message M { optional string § = 1; }", "is no Protobuf"),
        ("message M {" * 40, "nested deeper than 32"),
        ("message M { required string a = 1; }", "M.a is a required field of proto2"),
        ("message M { optional E a = 1; } enum E { A = 0; B = 0; }", "E has two symbols with one number"),
        ("message M { optional E a = 1; } enum E { A = 2147483648; }", "is not from 0 to 2,147,483,647"),
    ],
)
def test_what_is_wrong_in_a_proto_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        parse(text)


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*TRICKY.split(), "{", "}", ";", "=", "[", "message", "map<", '"', "1"]), max_size=60))
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    try:
        schemas = messages(" ".join(words))
    except ContractError:
        return
    assert schemas
