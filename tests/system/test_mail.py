# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mail host: what Postfix reuses with its own scache(8) is the measure for any other cache."""

import pytest

from mail import Delivery, MailFailed, Postfix, Sink


def reused(deliveries: list[Delivery]) -> int:
    return sum(delivery.conn_use >= 2 for delivery in deliveries)


def test_delivery_line():
    delivery = Delivery.parse("1A2B3C: to=<a@b.example>, relay=127.0.0.1[127.0.0.1]:2525, "
                              "conn_use=12, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, "
                              "status=sent (250 2.0.0 Ok)")
    assert delivery == Delivery("a@b.example", "127.0.0.1[127.0.0.1]:2525", 12, "sent",
                                "(250 2.0.0 Ok)")
    delivery = Delivery.parse("1A2B3C: to=<a@b>, orig_to=<c@d>, relay=none, delay=0.1, "
                              "delays=0/0/0/0.1, dsn=4.4.1, status=deferred (connect to 127.0.0.1: "
                              "Connection refused)")
    assert (delivery.relay, delivery.conn_use, delivery.status) == ("none", 1, "deferred")
    assert Delivery.parse("1A2B3C: removed") is None


def test_delivers_with_reuse_through_postfix_own_cache(machine):
    postfix = Postfix(machine)
    postfix.start()
    with Sink(machine):
        deliveries = postfix.wait_delivered(postfix.send(20))
    assert len(deliveries) == 20
    assert reused(deliveries) >= 15, deliveries
    assert postfix.warnings() == []


def test_no_reuse_without_a_cache(machine):
    """And so a test that sees reuse has seen a cache."""
    postfix = Postfix(machine, smtp_connection_cache_destinations="",
                      smtp_connection_cache_on_demand="no")
    postfix.start()
    with Sink(machine):
        assert reused(postfix.wait_delivered(postfix.send(10))) == 0


def test_missing_cache_is_a_warning(machine):
    postfix = Postfix(machine, connection_cache_service_name="nobody-there")
    postfix.start()
    with Sink(machine):
        postfix.wait_delivered(postfix.send(1))
    assert any("private/nobody-there" in warning for warning in postfix.warnings())


def test_undelivered_mail_is_reported_and_then_delivered(machine):
    postfix = Postfix(machine)
    postfix.start()
    recipients = postfix.send(1)
    with pytest.raises(MailFailed, match="(?s)1 of 1 mails not delivered.*Connection refused"):
        postfix.wait_delivered(recipients, timeout=1)
    with Sink(machine):
        assert postfix.wait_delivered(recipients)[0].status == "sent"


def test_bounced_mail_is_reported_at_once(machine):
    postfix = Postfix(machine)
    postfix.start()
    with Sink(machine, options=("-f", "rcpt")):
        with pytest.raises(MailFailed, match="^mail to .* bounced"):
            postfix.wait_delivered(postfix.send(1))


def test_two_instances(fresh_machine):
    first = Postfix(fresh_machine)
    first.start()
    second = Postfix(fresh_machine, "postfix-two", relayhost="[127.0.0.1]:2526")
    second.start()
    with Sink(fresh_machine, 2525), Sink(fresh_machine, 2526):
        to_first, to_second = first.send(3), second.send(3)
        assert all(d.relay.endswith(":2525") for d in first.wait_delivered(to_first))
        assert all(d.relay.endswith(":2526") for d in second.wait_delivered(to_second))
    assert first.warnings() + second.warnings() == []
