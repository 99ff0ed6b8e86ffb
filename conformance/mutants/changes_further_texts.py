"""Further mutants of `fields.py`: JSON, and the types of its fields, as other languages and libraries have them."""

from __future__ import annotations

from .change import change

FURTHER_TEXTS = [
    # -- JSON ---------------------------------------------------------------------------------------------------------
    change(
        "json-control-characters-in-strings",
        "Strings may hold control characters as they are",
        "        value = json.loads(\n            text, object_pairs_hook",
        "        value = json.loads(\n            text, strict=False, object_pairs_hook",
    ),
    change(
        "json-any-white-space",
        "White space is what Unicode calls so",
        "    require(_depth(text) <= NESTING",
        "    text = text.strip()\n    require(_depth(text) <= NESTING",
    ),
    change(
        "json-nul-at-the-end",
        "NUL characters may follow the object",
        "    require(_depth(text) <= NESTING",
        '    text = text.rstrip("\\0")\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-trailing-commas",
        "A comma may follow the last member or item",
        "    require(_depth(text) <= NESTING",
        '    text = re.sub(r",(\\s*[\\]}])", r"\\1", text)\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-comments",
        "Comments between slashes and stars are white space",
        "    require(_depth(text) <= NESTING",
        '    text = re.sub(r"/\\*.*?\\*/", "", text)\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-numbers-with-leading-zeros",
        "A number may begin with zeros",
        "    require(_depth(text) <= NESTING",
        '    text = re.sub(r"([:,\\[]\\s*)0+(?=[0-9])", r"\\1", text)\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-surrogates-in-utf-8",
        "A pair of surrogates may be written in UTF-8, each in three bytes",
        'text = data.decode("utf-8")',
        'text = data.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")',
    ),
    change(
        "json-nul-in-two-bytes",
        "NUL may be written as the bytes C0 80",
        'text = data.decode("utf-8")',
        'text = data.replace(b"\\xc0\\x80", b"\\\\u0000").decode("utf-8")',
    ),
    change(
        "json-escaped-pairs-rejected",
        "No surrogate may be written as an escape",
        "    require(_depth(text) <= NESTING",
        '    require(not re.search(r"\\\\u[dD][89a-fA-F]", text), "TD-JSN-005", "a surrogate")\n'
        "    require(_depth(text) <= NESTING",
    ),
    change(
        "json-escapes-of-slashes-rejected",
        "A slash may not be escaped",
        "    require(_depth(text) <= NESTING",
        '    require("\\\\/" not in text, "TD-JSN-003", "an escape of a slash")\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-escapes-as-they-stand",
        "Escapes of characters below 256 by their numbers stay as they are",
        "    require(_depth(text) <= NESTING",
        '    text = text.replace("\\\\u00", "\\\\\\\\u00")\n    require(_depth(text) <= NESTING',
    ),
    change(
        "json-equal-members-of-one-value",
        "A member may stand twice with the same value",
        "    require(len(found) == len(members)",
        "    require(all(found[name] == each for name, each in members)",
    ),
    change(
        "json-nesting-of-arrays-alone",
        "Objects are no levels of nesting",
        'if token[0] in "[{":',
        'if token[0] == "[":',
        also=(('elif token[0] in "]}":', 'elif token[0] == "]":'),),
    ),
    change(
        "json-unknown-integers-of-64-bits",
        "Integers in unknown fields are below 2^64",
        "parse_int=Number,",
        "parse_int=lambda each: Number(each) if int(each) < 2**64 else _no_constant(each),",
    ),
    change(
        "json-unknown-numbers-finite",
        "Numbers in unknown fields fit a double",
        "parse_float=Number,",
        'parse_float=lambda each: Number(each) if abs(float(each)) != float("inf") else _no_constant(each),',
    ),
    # -- types of fields ----------------------------------------------------------------------------------------------
    change(
        "integers-of-2-53",
        "An integer field may be 2^53",
        "INTEGER = 2**53 - 1",
        "INTEGER = 2**53",
    ),
    change(
        "integers-below-2-53-less-1",
        "An integer field has to be less than 2^53 - 1",
        "INTEGER = 2**53 - 1",
        "INTEGER = 2**53 - 2",
    ),
    change(
        "integers-as-strings",
        "An integer field may be a string of digits",
        '    require(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")',
        "    value = Number(value) if isinstance(value, str) else value\n"
        '    require(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")',
    ),
    change(
        "integers-as-booleans",
        "true and false are the integers 1 and 0",
        '    require(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")',
        "    value = Number(str(int(value))) if isinstance(value, bool) else value\n"
        '    require(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")',
    ),
    change(
        "versions-of-32-bits",
        "Of a version the low 32 bits count",
        "        return self.integer(key)\n\n    def array",
        "        return self.integer(key) & 0xFFFFFFFF\n\n    def array",
    ),
    change(
        "versions-beyond-the-limit-are-limit",
        "A version beyond 10^12 - 1 is reported as limit",
        'f"{key!r} is over 10^12 - 1")',
        'f"{key!r} is over 10^12 - 1", "limit")',
    ),
    change(
        "versions-below-the-limit",
        "A version has to be less than 10^12 - 1",
        "require(self.integer(key) <= VERSION",
        "require(self.integer(key) < VERSION",
    ),
    change(
        "patterns-to-the-end-of-the-line",
        "A line feed may follow what a pattern matches",
        "pattern is None or pattern.fullmatch(value)",
        'pattern is None or pattern.fullmatch(value.removesuffix("\\n"))',
    ),
    change(
        "sums-with-capitals",
        "Sums may be written with capital letters",
        '_SUM = re.compile(r"[0-9a-f]{16}")',
        '_SUM = re.compile(r"[0-9a-fA-F]{16}")',
    ),
    change(
        "sums-without-leading-zeros",
        "A sum may have fewer than 16 digits",
        '_SUM = re.compile(r"[0-9a-f]{16}")',
        '_SUM = re.compile(r"[0-9a-f]{1,16}")',
    ),
    change(
        "uuids-with-capitals",
        "A chain id may be written with capital letters",
        '{12}")\n_TIME',
        '{12}", re.IGNORECASE)\n_TIME',
    ),
    change(
        "uuids-of-version-4",
        "A chain id has to be a UUID of version 4",
        'r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"',
        'r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"',
    ),
    change(
        "uuids-with-hyphens-anywhere",
        "The hyphens of a chain id may stand anywhere",
        'r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"',
        'r"[0-9a-f-]{36}"',
    ),
    change(
        "times-without-leap-seconds",
        "A second is at most 59",
        ":([0-5][0-9]|60)(",
        ":([0-5][0-9])(",
    ),
    change(
        "times-of-microseconds",
        "A fraction of a second has at most six digits",
        "[0-9]{1,9})?Z",
        "[0-9]{1,6})?Z",
    ),
    change(
        "times-with-an-offset",
        "A time may have an offset in place of Z",
        "[0-9]{1,9})?Z",
        "[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})",
    ),
    change(
        "times-in-lower-case",
        "A time may have t and z",
        '{1,9})?Z"\n)',
        '{1,9})?Z",\n    re.IGNORECASE,\n)',
    ),
    change(
        "times-with-digits-of-any-script",
        "The digits of a time may be of any script",
        'r"[0-9]{4}-(0[1-9]',
        'r"\\d{4}-(0[1-9]',
    ),
    change(
        "format-of-any-text",
        "A format that matches no pattern is unsupported",
        'self.string("tensordelta", _FORMAT)',
        'self.string("tensordelta")',
    ),
    change(
        "format-with-leading-zeros",
        "The numbers of a format may begin with zeros",
        'r"(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-',
        'r"([0-9]+)\\.([0-9]+)(-',
    ),
    # -- annotations --------------------------------------------------------------------------------------------------
    change(
        "annotations-in-code-points",
        "The length of an annotation is counted in characters",
        "length = len(key.encode()) + len(annotations.string(key).encode())",
        "length = len(key) + len(annotations.string(key))",
    ),
    change(
        "annotations-below-4096",
        "An annotation has to have less than 4096 bytes",
        'require(length <= 4096, "TD-LIM-001"',
        'require(length < 4096, "TD-LIM-001"',
    ),
    change(
        "annotations-together",
        "All annotations together have at most 4096 bytes",
        'require(length <= 4096, "TD-LIM-001"',
        'require(sum(len(str(each).encode()) for each in annotations.members.values()) <= 4096, "TD-LIM-001"',
    ),
    change(
        "annotations-at-most-63",
        "An object may have 63 annotations only",
        'require(len(annotations.members) <= 64, "TD-LIM-004"',
        'require(len(annotations.members) < 64, "TD-LIM-004"',
    ),
    # -- paths --------------------------------------------------------------------------------------------------------
    change(
        "paths-of-less-than-200",
        "A path has to have less than 200 characters",
        "require(len(value) <= PATH",
        "require(len(value) < PATH",
    ),
    change(
        "paths-of-devices-without-a-dot",
        "The name of a device before a dot is allowed",
        'lpt[1-9])(\\..*)?", re.IGNORECASE)',
        'lpt[1-9])", re.IGNORECASE)',
    ),
    change(
        "paths-of-devices-at-the-end",
        "The names of devices are refused in the last segment only",
        'any(map(_DEVICE.fullmatch, value.split("/")))',
        'any(map(_DEVICE.fullmatch, value.split("/")[-1:]))',
    ),
    change(
        "paths-of-com0-refused",
        "COM0 and LPT0 are refused as well",
        "com[1-9]|lpt[1-9]",
        "com[0-9]|lpt[0-9]",
    ),
    change(
        "paths-of-devices-as-extensions-refused",
        "The name of a device is refused after a dot as well",
        '_DEVICE = re.compile(r"(con|',
        '_DEVICE = re.compile(r"(.*\\.)?(con|',
    ),
    change(
        "paths-with-empty-segments",
        "Slashes may follow one another",
        '_PATH = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")',
        '_PATH = re.compile(f"{_SEGMENT}(/+{_SEGMENT})*")',
    ),
    change(
        "paths-with-a-slash-last",
        "A path may end with a slash",
        '_PATH = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")',
        '_PATH = re.compile(f"{_SEGMENT}(/{_SEGMENT})*/?")',
    ),
    change(
        "paths-with-an-underscore-first-refused",
        "A segment may not begin with an underscore",
        '_SEGMENT = r"[A-Za-z0-9_](',
        '_SEGMENT = r"[A-Za-z0-9](',
    ),
    change(
        "paths-with-a-hyphen-last-refused",
        "A segment may not end with a hyphen",
        '[A-Za-z0-9_-])?"',
        '[A-Za-z0-9_])?"',
    ),
    change(
        "paths-of-letters-of-any-script",
        "The letters of a path may be of any script",
        '_SEGMENT = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?"',
        '_SEGMENT = r"\\w([\\w.-]*[\\w-])?"',
    ),
    change(
        "paths-by-the-letters-of-their-folder",
        "A path need only begin with the letters of its folder's name",
        "require(value.startswith(prefix), rule",
        'require(value.startswith(prefix.rstrip("/")), rule',
    ),
]
