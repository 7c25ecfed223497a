"""The committed proto is Triton's, field by field, and the generated module is the proto's."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2 as tritons

from shoal.config import model_config_pb2 as ours

ROOT = Path(__file__).resolve().parents[2]


def described(module):
    found = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(found)
    return found


def messages(descriptor, prefix=""):
    """Every message of a file or message, those inside others too, by its path."""
    inner = descriptor.message_type if hasattr(descriptor, "message_type") else descriptor.nested_type
    for message in inner:
        yield f"{prefix}{message.name}", message
        yield from messages(message, f"{prefix}{message.name}.")


def shape(field):
    """All that matters of a field: name, number, type, label, oneof."""
    type_name = field.type_name.removeprefix(".inference.").removeprefix(".shoal.config.")
    oneof = field.oneof_index if field.HasField("oneof_index") else None
    return field.name, field.number, field.type, field.label, type_name, oneof


THEIRS = dict(messages(described(tritons)))
OURS = dict(messages(described(ours)))


def test_the_messages_are_tritons():
    assert set(OURS) == set(THEIRS)


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_the_fields_are_tritons(name):
    assert [shape(field) for field in OURS[name].field] == [shape(field) for field in THEIRS[name].field]
    assert [oneof.name for oneof in OURS[name].oneof_decl] == [oneof.name for oneof in THEIRS[name].oneof_decl]


@pytest.mark.parametrize("name", ["", *sorted(THEIRS)])
def test_the_enums_are_tritons(name):
    theirs = THEIRS[name] if name else described(tritons)
    own = OURS[name] if name else described(ours)
    values = [
        [(enum.name, value.name, value.number) for enum in each.enum_type for value in enum.value]
        for each in (theirs, own)
    ]
    assert values[0] == values[1]


def test_it_has_its_own_place():
    """tritonclient registers ``model_config.proto`` in package ``inference``; both live in this process."""
    assert ours.DESCRIPTOR.name == "shoal/config/model_config.proto"
    assert ours.DESCRIPTOR.package == "shoal.config"


def test_the_bytes_are_the_same():
    """What one writes the other reads: numbers and types are all that is on the wire."""
    text = (ROOT / "tests/config/triton/sequence_direct.json").read_bytes()
    theirs = tritons.ModelConfig(name=text.decode(), max_batch_size=3, input=[{"name": "a", "dims": [1, -1]}])
    own = ours.ModelConfig.FromString(theirs.SerializeToString(deterministic=True))
    assert own.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    assert (own.max_batch_size, list(own.input[0].dims)) == (3, [1, -1])


def test_the_module_is_the_protos(tmp_path):
    """Nobody changed ``model_config.proto`` and forgot ``scripts/protos``."""
    out = tmp_path / "set"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "src", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "src/shoal/config/model_config.proto"], cwd=ROOT, check=True, timeout=60)
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    for field in (field for _, message in messages(compiled) for field in message.field):
        field.ClearField("json_name")
    assert compiled == described(ours)
