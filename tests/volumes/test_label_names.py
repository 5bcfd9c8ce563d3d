import xml.etree.ElementTree as ET

from nibabel import nifti1

from ukbob_jax.volumes import label_names

NAMES = {7: "left & right <lung>", 0: "background", 300: "Herz é"}


def test_names_come_back_in_ascending_order():
    found = label_names.parse([label_names.extension(NAMES)])
    assert list(found.items()) == sorted(NAMES.items())


def test_the_extension_is_padded_with_spaces_to_sixteen_bytes():
    for length in range(1, 40):
        content = label_names.extension({1: "x" * length}).get_content()
        assert (len(content) + 8) % 16 == 0 and b"\0" not in content
        ET.fromstring(content)


def test_background_is_transparent_and_neighbours_differ_in_colour():
    root = ET.fromstring(label_names.extension({i: str(i) for i in range(73)}).get_content())
    labels = {int(label.attrib["Key"]): label.attrib for label in root.iter("Label")}
    assert [labels[0][key] for key in ("Red", "Green", "Blue", "Alpha")] == ["0.000"] * 3 + ["0"]
    colours = [tuple(labels[i][key] for key in ("Red", "Green", "Blue")) for i in range(1, 73)]
    assert len(set(colours)) == 72


def test_extensions_of_other_programs_are_passed_over():
    ours = label_names.extension(NAMES)
    broken = b"<CaretExtension><Label>no key</Label></CaretExtension>"
    others = [nifti1.Nifti1Extension(0, content) for content in (b"not XML", b"<empty/>", broken)]
    assert label_names.parse([*others, ours]) == NAMES
    assert label_names.parse(others) == {}
