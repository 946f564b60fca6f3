import pytest

from condswin.mri.header import Header, parse_header, strip_header

from .conftest import HEADER


def test_reads_geometry_and_padding():
    header = parse_header(HEADER)
    assert header == Header(encoded=(42, 31, 1), recon=(20, 22, 1), padding=(2, 29), patient_id="SECRET-17")


def test_reads_what_little_there_is():
    assert parse_header(b"<ismrmrdHeader><encoding/></ismrmrdHeader>") == Header()


def test_stripping_keeps_encoding_and_nothing_personal():
    bare = strip_header(HEADER)
    assert parse_header(bare) == parse_header(HEADER)._replace(patient_id=None)
    for word in (b"QUIXOTE", b"SECRET", b"2017", b"SERIAL", b"Vendor"):
        assert word not in bare
    assert b"2.89" in bare


def test_stripping_drops_numbers_that_identify():
    numbered = HEADER.replace(b"SERIAL-4711", b"4711").replace(
        b"<trajectory>", b"<studyID>123456</studyID><trajectory>"
    )
    bare = strip_header(numbered)
    assert b"4711" not in bare
    assert b"123456" not in bare


def test_stripping_drops_text_hidden_in_kept_elements():
    sneaky = HEADER.replace(b"<trajectory>cartesian", b"<trajectory>Jane Doe").replace(b"2.89", b"Jane Doe")
    sneaky = sneaky.replace(b"<encodedSpace>", b"Jane Doe<encodedSpace who='Jane Doe'><!-- Jane Doe -->")
    assert b"Jane" not in strip_header(sneaky)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not well-formed"),
        (b"<a><b></a>", "not well-formed"),
        (b"\xff\xfe<a/>", "utf-8"),
        (b"<!DOCTYPE a [<!ENTITY b 'ha'>]><a>&b;</a>", "declares"),
        ("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a [<!ENTITY b 'ha'>]><a/>".encode("utf-16"), "utf-8"),
        (HEADER.replace(b"<x>42</x>", b"<x>many</x>"), "expected a whole number"),
        (HEADER.replace(b"<x>42</x>", b""), "expected a whole number"),
        (b"<a>" + b" " * (1 << 20) + b"</a>", "more than"),
        (b"<encoding>" * 9999 + b"</encoding>" * 9999, "nested"),
    ],
    ids=["empty", "malformed", "encoding", "entities", "entities in UTF-16", "word", "no x", "long", "deep"],
)
def test_refuses(raw, reason):
    with pytest.raises(ValueError, match=reason):
        parse_header(raw)
