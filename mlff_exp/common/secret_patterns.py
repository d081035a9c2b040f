"""Find secrets in a text by the words next to them and by the well-known forms of tokens."""

from __future__ import annotations

import re

HIDDEN = "***"
# The owner of a secret key: sort_key, public_key and the plain key are none.
_OWNERS = (
    r"api|access|priv(?:ate)?|account|auth|encrypt(?:ion)?|decrypt(?:ion)?|signing|shared|master|ssh|licen[sc]e|consumer"
    r"|app(?:lication)?|service|deploy(?:ment)?|subscription|client|server|storage|admin|root|user|activation|write"
    r"|integration|wallet|unseal|recovery|fernet|session|backup|(?<![a-z])(?:aes|rsa|dsa|ecdsa|gpg|pgp|tls|ssl|sign)"
)
_KEY = (
    r"passw|passphrase|passcode|secret(?!ar)|token(?!i[sz])|credential|bearer|cookie|(?<![a-z])pwd"
    r"|(?<![a-z])pass(?![a-z])|auth(?!or(?!i[sz]))|connection[ _.-]?string|env_set"
    rf"|(?:{_OWNERS})[ _.-]?key(?!board|pad|word|note)"
    # Short words by themselves: sigma, spin and uncertain hold some of them. Quantum Espresso's program is pw.x.
    r"|(?<![a-z])(?:sas|sig|jwt|t?otp|mfa|sid|dsn|creds?|hmac|psk|csrf|xsrf|cert|pem)(?![a-z])"
    r"|(?<![a-z])(?<!espresso )pw(?![a-z]|\.x\b)|(?<![a-z])pin(?![a-z_-])"
    r"|sess(?:ion)?[ _.-]?id|(?<![a-z])signature|webhook|(?<![a-z])ticket(?![a-z])"
    r"|mnemonic|seed[ _.-]?phrase|recovery[ _.-]?code|fernet"
    r"|kennwort|mot[ _.-]?de[ _.-]?passe|contrase[nñ]a|пароль|密码"
    r"|(?:my|user|root|admin|login|proxy|db|smtp|imap|ftp|mail|ssh|vpn)(?:pass|pwd|pw)(?![a-z])"
)
SECRET_KEY = re.compile(_KEY, re.IGNORECASE)
# From the start of a word, and bounded: a line of a hundred thousand letters must not take minutes.
_NAME = rf"(?<![\w.@/+~-])[\w.@/+~-]{{0,120}}?(?:{_KEY})[\w.-]{{0,80}}"
# Not at the end of a file's name, which a message may begin with.
_FILES = ("xyz", "extxyz", "pdb", "cif", "sdf", "mol", "gen", "traj", "pt", "safetensors", "npz", "json", "yaml", "py")
_NO_FILE = "".join(rf"(?<!\.{ending})" for ending in _FILES)
# The name of a file in a directory is no key either.
_KEY_OF_COLON = rf"(?<![\w.@/+~-])[\w.@+~-]{{0,120}}?(?:{_KEY})[\w.-]{{0,80}}{_NO_FILE}"
# The user and password of an address, up to the last @ before its path: a password may hold one.
_IN_URI = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/\s]+@", re.IGNORECASE)
# A password with slashes or spaces in it. What follows the colon of a plain address is the number of a port.
_IN_ODD_URI = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,30}://)(?!\*\*\*@)[^/\s:@'\"]*:(?!\d{1,5}[\s,;)])[^@'\"\n]{0,400}@", re.IGNORECASE
)
URI = re.compile(r"[a-z][a-z0-9+.-]{0,30}://(?:[^/\s:@]*):(.+)@", re.IGNORECASE)
# A complete word of the command line: its value is the rest of the word.
_OVERRIDE = re.compile(rf"^([+~]*{_NAME}\s*=).+$", re.IGNORECASE | re.DOTALL)
_QUOTED_OVERRIDE = re.compile(rf"(['\"])({_NAME}=)(?:\\.|(?!\1).)*\1", re.IGNORECASE)
# key=value, key: value and "key": "value" in addresses, lists of words, messages, YAML, JSON and code.
_PAIR = re.compile(
    rf"((?:{_NAME}['\"]?\]?\s*:?=|{_KEY_OF_COLON}['\"]?\]?\s*:(?!//))[ \t]*)"
    rf"((?:bearer|basic|digest)[ \t]+[^\s'\",]+|[\"'](?:\\.|[^\"'\\\n])*[\"']|[^\s,&;'\"(){{}}\[\]]+)",
    re.IGNORECASE,
)
_YAML = re.compile(
    rf"^([+-]?\s*(?:-\s+)?[\"']?[\w.-]{{0,80}}(?:{_KEY})[\w.-]{{0,80}}{_NO_FILE}[\"']?:[ \t]+)"
    r"(?![{\[(]|[|>][+-]?\s*$).+$",
    re.I | re.M,
)
# An item of a list, or a deeper line, below a key that has no value in its own line.
_LINES_BELOW = re.compile(
    rf"^([+-]?)([ \t]*)((?:\{{[ \t]*|-[ \t]+)?[\"']?[\w.-]{{0,80}}(?:{_KEY})[\w.-]{{0,80}}[\"']?[ \t]*:?[:=][ \t]*\\?)"
    r"(?:\n[+-]?(?:\2[ \t]+\S|\2-[ \t])[^\n]*){1,200}",
    re.IGNORECASE | re.MULTILINE,
)
# Values on the lines below their key, within brackets, or between tags.
_BELOW = re.compile(
    rf"({_NAME}['\"]?\]?[ \t]*:?[=:][ \t]*(?:[|>][+-]?[ \t]*(?=\n)))(?:\n[+ -]?[ \t]+\S[^\n]*){{1,200}}", re.IGNORECASE
)
_ENCLOSED = re.compile(
    rf"({_NAME}['\"]?\]?[ \t]*:?[=:][ \t]*)(?:\([^()]{{0,4000}}\)|\[[^\[\]]{{0,4000}}\]|\{{[^{{}}]{{0,4000}}\}}"
    r"|\"\"\"[^\"]{0,4000}\"\"\"|'''[^']{0,4000}'''|\$\([^()]{0,4000}\))",
    re.IGNORECASE,
)
_TAG = re.compile(
    rf"(<[\w:.-]{{0,80}}(?:{_KEY})[\w:.-]{{0,80}}(?:\s[^<>]{{0,400}})?>)[^<]{{1,4000}}(?=</)", re.IGNORECASE
)
# <add key="password" value="…"/>, and name and value of a variable in YAML and JSON.
_NAMED_VALUE = re.compile(
    rf"(\b(?:key|name|id)[\"']?\s*[:=]\s*[\"']?[\w.:-]{{0,80}}?(?:{_KEY})[\w.:-]{{0,80}}[\"']?[\s,]{{1,40}}"
    r"(?:[\w:-]{1,40}=[\"'][^\"'\n]{0,80}[\"']\s+){0,3}[\"']?value[\"']?\s*[:=]\s*)"
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,}/>\"']+)",
    re.IGNORECASE,
)
# Words of a Dockerfile and of shells.
_ASSIGNED = re.compile(
    rf"^([+-]?[ \t]*(?:(?:ENV|setx|setenv)[ \t]+{_NAME}[ \t]+|set[ \t]+{_NAME}[ \t]+(?=\S+$)))\S+", re.I | re.M
)
# After another sign than = and :, or after none; such words need capitals, small letters and digits to be a secret.
_NEXT_TO = re.compile(
    r"(\b(?i:[\w.-]{0,40}passw\w{0,40}|[\w.-]{0,40}token|secret|(?:api|access)[ _-]?key)"
    r"[ \t]*(?:->|=>|<-|→|[|,(]|[ \t])[ \t]*[\"']?)(?=[^\s]{0,400}\d)(?=\S{0,400}[a-z])(?=\S{0,400}[A-Z])[\w+/=.-]{8,}"
)
# Commands and files that give a secret by its place.
_BY_PLACE = (
    re.compile(r"(\b(?:mysql|mariadb)[\w-]{0,20}\b[^\n|;&]{0,200}?\s-p)[^\s-]\S*"),
    re.compile(r"(\bsshpass\s+-p[ \t=]*)(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)"),
    re.compile(r"(\b(?:docker|podman|helm|oc|az)\b[^\n|;&]{0,80}?\blogin\b[^\n|;&]{0,200}?\s-p[ \t=]*)\S+"),
    re.compile(r"(\bwandb\s+login\s+(?:--relogin\s+)?)[^\s-]\S{7,}"),
    re.compile(r"(\b(?:plink|pscp|psftp|putty)\b[^\n|;&]{0,200}?\s-pw[ \t]+)\S+"),
    re.compile(r"(\becho\s+(?:-n\s+)?)[^\n|;&]{1,400}?(?=\s*\|[^\n;&]{0,200}--password-stdin)"),
    # .pgpass: host:port:database:user:password
    re.compile(
        r"^([+-]?[\w.*-]{1,120}:(?:\d{2,5}|\*):(?!\d+:)[^\s:]{1,120}:[^\s:]{1,120}:)(?:\\.|[^\s:\\])+$", re.MULTILINE
    ),
    re.compile(r"([?&;]key=)[^&;\s#'\"]+", re.IGNORECASE),
    re.compile(r"(\bhooks\.slack\.com/(?:services|workflows|triggers)/)[\w/+-]+", re.IGNORECASE),
    re.compile(r"(\bdiscord(?:app)?\.com/api/(?:v\d+/)?webhooks/)[\w/-]+", re.IGNORECASE),
)
# Of commands, headers and .netrc.
_FLAG = re.compile(
    rf"((?<![\w-])--[\w-]{{0,80}}?(?:{_KEY})[\w-]{{0,80}}[ \t]+)(?!-)(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)", re.I
)
_USER = re.compile(r"((?<!\S)(?:-u|-U|--user|--proxy-user)[ \t=]*['\"]?[^\s:'\"]{1,120}:)[^\s'\"]+")
_SCHEME = re.compile(r"\b(Bearer|Basic|Digest)([ \t]+)(?=[^\s'\",;]*[\d=]|[^\s'\",;]{20})[^\s'\",;]{6,}")
_SMALL_SCHEME = re.compile(
    r"\b(basic|BASIC|bearer|BEARER)([ \t]+)(?=\S{0,400}[a-z])(?=\S{0,400}[A-Z])(?=\S{0,400}[\d=])"
    r"[\w+/.-]{6,}=*(?![\w.])"
)
_NETRC = re.compile(r"(\blogin\s+\S{1,120}\s+password\s+)\S+", re.IGNORECASE)
# In prose; what follows may as well be an ordinary word, so it must hold a digit or a sign.
_PROSE = re.compile(
    r"(\b(?:password|passphrase|passwd|secret|token)\s+(?:is|was)\s+)(?=[^\s]*[\d!#$%&*+=?^~])[^\s,;'\"]{4,}",
    re.IGNORECASE,
)
# Such a label would be an odd user, and a path or a port after the host would be odd in an address of e-mail.
_E_MAIL = (
    r"(?:mailto|e-?mail|mail|authors?|contacts?|maintainers?|editors?|owners?|from|to|cc|bcc|by|reply-to|sender)"
    r":[\w.+-]{1,120}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?![\w-]|\.\w|[:/])"
)
_PLACES = (
    # What looks like a port may begin a password, if one more word stands before the @ of a host with a path.
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/\s:@'\"]{0,120}:\d{1,5}[\s,;)][^\s@'\"]{1,120}@(?=[\w.-]+[/:])", re.I),
    re.compile(r"((?<![\w:/])//)[^/\s:@'\"]{1,120}:[^/\s@'\"]{1,400}@"),
    # A user and a password before a host, without the slashes of an address; no label before an address of e-mail.
    re.compile(
        rf"((?<![\w.:/@+-])(?!{_E_MAIL})[\w.+-]{{1,120}}:)(?!\*\*\*)[^/\s@:'\"]{{1,400}}@(?=[\w-])", re.IGNORECASE
    ),
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\bsk-[\w-]{20,}|\b[rsp]k_(?:live|test)_\w{10,}|\bwhsec_\w{16,}|\bhf_\w{20,}|\bnpm_\w{20,}|\bpypi-[\w-]{16,}"
    r"|\bAIza[\w-]{20,}|\bya29\.[\w.-]{10,}|\bSG\.[\w-]{10,}\.[\w-]{10,}|\bdapi\w{20,}|\btskey-[\w-]{10,}"
    r"|\bxox[abeprs]-[\w-]{10,}|\bxapp-[\w-]{10,}|\bnvapi-[\w-]{20,}|\bgsk_\w{20,}|\bdop_v1_\w{20,}|\bhvs\.[\w-]{20,}"
    # A token of JSON (JWT): its parts are letters of base64.
    r"|\beyJ[\w-]{5,}(?:\.[\w-]*){2,4}",
    re.DOTALL,
)


def mask_text(text: str) -> str:
    """Return a text with stars in place of its secrets; a file's name and other words that only look alike stay."""
    text = _OVERRIDE.sub(rf"\1{HIDDEN}", text) if "\n" not in text else text
    for address in (_IN_URI, _IN_ODD_URI, *_PLACES):
        text = address.sub(rf"\1{HIDDEN}@", text)
    text = _SCHEME.sub(rf"\1\2{HIDDEN}", _USER.sub(rf"\1{HIDDEN}", text))
    text = _SMALL_SCHEME.sub(rf"\1\2{HIDDEN}", text)
    for place in _BY_PLACE:
        text = place.sub(rf"\1{HIDDEN}", text)
    if not SECRET_KEY.search(text):
        return _SHAPES.sub(HIDDEN, text)
    for words in (_PROSE, _NEXT_TO, _ASSIGNED, _NAMED_VALUE):
        text = words.sub(rf"\1{HIDDEN}", text)
    text = _QUOTED_OVERRIDE.sub(rf"\1\2{HIDDEN}\1", text)
    text = _NETRC.sub(rf"\1{HIDDEN}", _FLAG.sub(rf"\1{HIDDEN}", _TAG.sub(rf"\1{HIDDEN}", text)))
    text = _ENCLOSED.sub(rf"\1{HIDDEN}", _BELOW.sub(rf"\1\n  {HIDDEN}", text))
    text = _LINES_BELOW.sub(rf"\1\2\3\n\1\2  {HIDDEN}", text)
    return _PAIR.sub(rf"\1{HIDDEN}", _YAML.sub(rf"\1{HIDDEN}", _SHAPES.sub(HIDDEN, text)))
