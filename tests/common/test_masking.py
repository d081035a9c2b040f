"""Secrets under other keys and in other places, and what is none."""

from __future__ import annotations

import pytest

from mlff_exp.common.secrets import mask_secrets

KEYS = (
    "sas", "pin", "pw", "jwt", "otp", "session_id", "sessionId", "signature", "sig", "dsn", "webhook", "cred", "creds",
    "hmac", "psk", "userpwd", "mypass", "csrf", "cert", "pem", "user_pin", "tls.cert", "X-Sig",
    "consumer_key", "appkey", "serviceKey", "deploy-key", "Ocp-Apim-Subscription-Key", "client-key-data", "privkey",
    "fernet_key", "totp", "mfa", "mnemonic", "seed_phrase", "recovery_code", "sessid", "PHPSESSID", "sid", "ticket",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_values_of_secret_keys_are_masked(key: str) -> None:
    assert mask_secrets({key: "SEC1234"}) == {key: "***"}
    assert mask_secrets(f"+model.calculator.{key}=SEC1234") == f"+model.calculator.{key}=***"


@pytest.mark.parametrize(
    "text",
    [
        "--password SEC1234", "prog --api-key 'SEC1234' x", "curl -u me:SEC1234 http://x", "Bearer SEC1234",
        "Basic SEC1234", "https://h/?sig=SEC1234", "http://u:80 SEC1234@h/", "//u:SEC1234@h/",
        "machine h login u password SEC1234", '+password=(\n+  "SEC1234"\n+)', "+password: |\n+  SEC1234",
        "+password: >-\n+  SEC1234", '+password="""\n+SEC1234"""', '+{"auth": {"key": "SEC1234"}}',
        "+PASSWORD := SEC1234", "+<password>SEC1234</password>", '+passwords = ["a", "SEC1234"]',
        "+TOKEN=$(echo SEC1234)",
        "me:SEC1234@host.org/db", "the password is SEC1234", "password: SEC1234", "+smtppass=SEC1234",
        "+password={SEC1234}", "+password = (SEC1234)",
        "root:SEC1234@host.org", "author:SEC1234@host.org/db",
        "author:SEC1234@host.org:5432", "author:SEC1234#!@host.org",
        "https://h/p?key=SEC1234", "https://h/p?a=1&key=SEC1234#x", "https://hooks.slack.com/services/T0/B0/SEC1234",
        "https://discord.com/api/webhooks/1/SEC1234", "password = \n  SEC1234", "passwords:\n  - a\n  - SEC1234",
        "+tokens:\n+- a\n+- SEC1234", '{\n  "password":\n    "SEC1234"\n}', '<add key="password" value="SEC1234"/>',
        "- name: DB_PASSWORD\n  value: SEC1234", "curl --proxy-user u:SEC1234", "mysql -u root -pSEC1234",
        "sshpass -p SEC1234 ssh x", "ENV TOKEN SEC1234", "set apikey SEC1234", "h:5432:db:user:SEC1234",
        "docker login -u a -p SEC1234", "password -> SEC1234abc", "basic dTpwSEC1234=",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nSEC1234\n-----END PGP PRIVATE KEY BLOCK-----",
        "eyJhbGci.eyJzdWIi.SEC1234",
        # In two parts: a complete token of such a form in a file alarms programs that look for them.
        *(f"at {start}SEC1234abcdefghijklmnop" for start in (
            "sk_" "live_", "rk_" "live_", "np" "m_", "py" "pi-", "AI" "za", "ya2" "9.", "da" "pi", "ts" "key-auth-",
            "gh" "o_", "github_" "pat_", "xo" "xp-", "SG." "abcdefghijkl.",
        )),
    ],
)  # fmt: skip
def test_a_secret_in_a_command_an_address_or_a_difference_is_hidden(text: str) -> None:
    assert "SEC1234" not in mask_secrets(text)
    assert "***" in mask_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "model.checkpoint: /etc/passwd: neither a safetensors nor a PyTorch file",
        "tokens.xyz: ASE can't read it",
        "system.path: my/passwords.pdb: no atoms",
        "+model.calculator.sigma=3.4",
        "spin=1, uncertainty: 0.5, design=2, pinned: 3, pin_memory=true",
        "the basic sweeper, and Basic launcher of Hydra",
        "see http://127.0.0.1:5000 by a@b",
        "task.systems=[benzene,water]",
        "task.passes=3, bypass=1, compass: north",
        "write to e@mail.org or mailto:e@mail.org",
        "author:e@mail.org, Contact:me.too@mail.example.org.",
        "the password is wrong",
        "tokenizer=fast, authority: x, secretary=a, RunKey=3, monkey: 1, keyboard: us, key: value, sort_key=name",
        "espresso pw: failed",
        "pw.x: stopped",
        "basic float32 layers, Basic linear algebra subprograms",
        "    if token:\n        return 1",
        "a.py:12:5:E501:long, 08:00:27:aa:bb:cc",
    ],
)
def test_other_text_is_not_masked(text: str) -> None:
    assert mask_secrets(text) == text
