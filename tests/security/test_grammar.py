"""Which conditions are of the language at all: the cases of the parser's tests upstream, as data."""

from __future__ import annotations

import pytest

from security.rules.condition import ConditionError, parse_condition

ACCEPTED = r"""
  a
(a)
a and b and(c)
(a)and(b)and(c)
a or b or(c)
(a)or(b)or(c)
(a.a exists and b)
(a.a exists) and (b)
a.a=1 or b.b=2 and c
not (not (a))
not (a.a exists)
a.b = 1 and not a
(not not a)
not not(a)
not(not(a))
not(a)and(not(b))
a.b = not
a.b icontains 'bla'
a.g in (1, 'a', b)
evt.dir=> and fd.name=*.log
a.g in (1, 'a', b.c)
a.b = a.a
a and notb
a or notb
notz and a and b
macro and not_macro
macro and not not_macro
macro and not(not_macro)
macro and and_macro
((macro) and (or_macro))
evt.arg[0] contains /bin
evt.arg[a] contains /bin
test.str = 0a!@#456:/\.;!$%^&*[]{}|
test.str = ""
test.str = ''
test.str = "0a!@#456:/.; !$%^&*[]{}|"
test.str[0a!@#456:/\.;!$%^&*(){}|] = testval
test.str[+0.25e+10] = a
test.str[""] = empty
test.str['a aa'] = a
test.str["test \"with\"escaping"] = a
test.str = "escape double quote \" "
test.str = 'escape single quote \' '
test.str = 'multiple escape single quote \' \\''
test.str = 'mixed "'
test.str = "mixed '"
test.str = "bad escape \ "
test.num < +1
test.num >= -1
test.num <= 0x12345
test.num <= 0XaB00AB
test.num < -1.2
test.num > -0.1222e+10
test.str = !0.1222e+10
test.str = 0xAAA.1
test.list in ()
test.list in ("double-quoted")
test.list in (0a!@#456:/\.;!$%^&*[]{}|, value)
test.list in (value, "value", 'value')
test.list intersects (value)
test.list pmatch (value)
test.op exists and macro
test.op == value
test.op iglob value
test.op bcontains 48545450
test.op in()
test.op existsand macro
(b64(test.field) exists)
not b64(test.field) exists or b64(test.field) contains 'a'
b64(toupper(test.field)) exists
 b64( test.field ) exists
b64( b64(test.field )) exists
some.field = test.field
some.field iglob val(test.field)
some.field bstartswith b64(test.field)
some.field <= val(test.field)
some.field in b64(test.field)
some.field pmatch val(test.field)
tolower(some.field) = b64(test.field) or tolower(other.field) = tolower(another.field)
some.field = b64 and(some_macro)
some.field = 'some_fake_transformer(some_macro)'
""".strip("\n").split("\n")

REJECTED = r"""
a andb
aand b
a and b and
a and b or
a and b not
and a
or a
a not b not
a orb
aor b
a and or b
a andor b
a notb
anot b
a andnot b
(a)andnot(b)
(a)ornot(b)
evt.arg[] contains /bin
a.b = b = 1
(a.b = 1
a.a invalidoperator xxx
macro > 12
a.g in ( 1 ,, , b)
#a and b; a and b
evt.dir=> and fd.name=/var/lo);g/httpd.log
test.str = a,
test.str = a=
test.str = a('")
test.str = '
test.str = '"
test.str = missing start quote
test.str = 'missing end quote
test.str = "broken escape double quote""
test.str = "mixed \'"
test.str = 'mixed \"'
test.str[0a!@#456:/\.;!$%^&*[]{}] = testval
test.str[] = testval
test.str[[] = testval
test.str['''] = a
test.str[aaa"] = a
test.str[   test   ] = testval
test.str] = testval
test.num > !0.1222e+10
test.num < 0xAAA.1
test.num >= 0aaaaa
test.num <= a
test.list in (
test.list in )
test.list in (value,)
test.list in (,)
test.list > (value)
test.list = (value)
test.list startswith (value)
test.op ExIsTs
test.op exists something
test.op ===
test.op startswithvalue
test.op iglobvalue
val(test.field) exists
val(b64(test.field)) exists
b64(val(test.field)) exists
b64(test.field [1]) exists
some_fake_transformer(test.field) exists
some.fake.transformer(test.field) exists
b64 (test.field) exists
b64,(test.field) exists
b64(testfield) exists
b64(b64) exists
b64(test.field exists
b64(test.field)) exists
(test.field) exists
a(b(test.field)) exists
some.field = b64and(some_macro)
some.field = val(test.field [1])
some.field = val(val(test.field))
some.field = val(toupper(test.field))
some.field = b64(val(test.field))
some.field = b64 (test.field)
some.field = (b64(test.field))
some.field = b64(test.field
some.field = (test.field)
some.field in (a, b64(test.field))
some.field = val(a.b, c.d)
""".strip("\n").split("\n")


@pytest.mark.parametrize("text", ACCEPTED)
def test_condition_is_accepted(text: str) -> None:
    parse_condition(text)


@pytest.mark.parametrize("text", REJECTED)
def test_condition_is_rejected(text: str) -> None:
    with pytest.raises(ConditionError):
        parse_condition(text)
