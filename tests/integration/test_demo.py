"""The demo: a shop of real processes proves itself on made-up, dirty and real lines; its proof can fail."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from postline.demo.contracts import InvoiceIssued, LineRead, LinesCounted, ParcelPacked, RefundPaid
from postline.demo.direct import Direct, compute
from postline.demo.files import read_files, write_orders
from postline.demo.parsing import UnreadableLine, read_line
from postline.demo.proof import Proof, add_figures, check_effects, check_lines, check_order, check_sums
from postline.demo.shoplog import remove_from_cluster, write_settings
from postline.demo.stored import Stored
from postline.settings import load_settings
from tests.brokers.fixtures import require_kafka

ROOT = Path(__file__).resolve().parents[2]

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def demo(*arguments: str, code: int = 0) -> Any:
    """Run `postline demo --json` in a process of its own; gives what it printed."""
    program = "import sys; from postline.cli import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", program, "demo", "--json", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return json.loads(ended.stdout) if ended.stdout else ended.stderr


def failed(result: Any) -> list[Any]:
    return [check for check in result["checks"] if not check["ok"]]


def test_a_shop_whose_processes_are_killed_proves_itself(tmp_path):
    result = demo("--orders", "300", "--kills", "6", "--seed", "3", "--keep", str(tmp_path / "shop"))
    assert failed(result) == []
    assert result["ok"] is True
    assert result["kills"] == 6
    assert result["restarts"] >= 6
    assert result["invoices"] == 300
    assert result["poison"]["attempts"] == 6
    assert (tmp_path / "shop" / "shop.db").exists()


def test_a_shop_whose_log_is_moved_half_way_proves_itself(tmp_path):
    to = ("--move-to", "sqlite:///moved.db")
    result = demo(*to, "--orders", "200", "--kills", "2", "--seed", "5", "--keep", str(tmp_path / "shop"))
    assert failed(result) == []
    assert (result["ok"], result["kills"], result["move"]["kills"]) == (True, 2, 2)
    assert result["move"]["records"] > 200
    assert (tmp_path / "shop" / "moved.db").exists()


def test_a_shop_of_few_orders_is_moved_too():
    result = demo("--move-to", "sqlite:///moved.db", "--orders", "3", "--kills", "0", "--workers", "1")
    assert failed(result) == []
    assert result["move"]["target"].endswith("moved.db")


@pytest.mark.timeout(600)
def test_the_same_shop_proves_itself_on_kafka_and_leaves_nothing_there(kafka_one):
    result = demo("--url", kafka_one.url, "--orders", "60", "--kills", "2", "--seed", "3", "--workers", "1")
    assert failed(result) == []
    assert (result["ok"], result["kills"], result["invoices"]) == (True, 2, 60)
    assert result["poison"]["attempts"] == 6
    admin = AdminClient(kafka_one.client)
    assert [name for name in admin.list_topics(timeout=30).topics if name.startswith("demo-")] == []
    groups = admin.list_consumer_groups().result(30).valid
    assert [group.group_id for group in groups if group.group_id.startswith("demo-")] == []


def demo_on_three_brokers(command: list[str]) -> Any:
    """Run a command of the demo while each of three brokers dies in turn; gives what it printed."""
    require_kafka()
    brokers = ["run", "--name", f"tests-{os.getpid()}-demo", "--brokers", "3", "--tests", "--kill-brokers", "--"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.brokers", *brokers, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SIGKILL of broker 3" in ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.brokers
@pytest.mark.timeout(900)
def test_a_shop_proves_itself_while_each_of_three_brokers_is_killed():
    program = "import sys; from postline.cli import main; sys.exit(main())"
    arguments = ["demo", "--json", "--orders", "9000", "--kills", "5"]
    assert failed(demo_on_three_brokers([sys.executable, "-X", "faulthandler", "-c", program, *arguments])) == []


@pytest.mark.slow
@pytest.mark.brokers
@pytest.mark.timeout(900)
def test_a_shop_begun_on_a_file_proves_itself_on_three_brokers_that_are_killed_in_turn():
    program = """
import os, sys
from postline.cli import main
sys.argv += ["--move-to", os.environ.pop("POSTLINE_URL")]
sys.exit(main())
"""
    arguments = ["demo", "--json", "--orders", "4000", "--kills", "5"]
    result = demo_on_three_brokers([sys.executable, "-X", "faulthandler", "-c", program, *arguments])
    assert failed(result) == []
    assert result["move"]["target"].startswith("kafka://")


def test_the_paths_in_a_url_hold_where_the_shop_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("secret")
    (tmp_path / "shop").mkdir()
    url = "kafka://here:1?sasl.password_file=password&ssl.ca.location=probe&sasl.username=password&publish_seconds=5"
    write_settings(tmp_path / "shop", None, {"POSTLINE_URL": url}, random.Random(1))
    settings = load_settings({}, tmp_path / "shop")
    assert settings.namespace.startswith("demo-")
    assert settings.url.options == {
        "sasl.password_file": str(tmp_path / "password"),
        "ssl.ca.location": "probe",
        "sasl.username": "password",
        "publish_seconds": "5",
        "connect_seconds": "60",
        "create_topics": "true",
        "cache_dir": str(tmp_path / "shop" / "cache"),
    }
    assert (tmp_path / "shop" / "postline.toml").stat().st_mode & 0o077 == 0


def test_a_file_of_the_users_own_is_no_place_for_the_shop(tmp_path):
    write_settings(tmp_path, None, {"POSTLINE_URL": "sqlite:///of-the-user.db"}, random.Random(1))
    assert load_settings({}, tmp_path).url.path == str(tmp_path / "shop.db")
    remove_from_cluster(tmp_path)
    assert "--keep" in demo("--url", "sqlite:///of-the-user.db", code=2)


DIRTY = {
    "2011-01-01.csv": [
        HEADER,
        "1,A,PLAIN,2,2011-01-01 08:00:00,1.25,7.0,France",
        "1,A,PLAIN,2,2011-01-01 08:00:00,1.25,7.0,France",
        '1,B,"QUOTED, WITH ""COMMA""",1,2011-01-01 08:00:00,0.001,7.0,France',
        "1,C,NO NUMBER,two,2011-01-01 08:00:00,1.25,7.0,France",
        "",
        "2,A,NO CUSTOMER AT THE CAF\xc9,3,2011-01-01 09:00:00,2.00,,Spain",
        "2,A,TOO FEW COLUMNS",
        "C3,A,PLAIN,-2,2011-01-01 10:00:00,1.25,7.0,France",
        '7,A,"UNCLOSED QUOTE,1,2011-01-01 10:00:00,1.25,8.0,Spain',
    ],
    "2011-01-02.csv": [
        HEADER,
        ",A,NO INVOICE,1,2011-01-02 08:00:00,1.00,7.0,France",
        "1,D,LATE LINE OF AN OLD INVOICE,1,2011-01-02 08:00:00,4.00,7.0,France",
        "1,A,PLAIN,2,2011-01-01 08:00:00,1.25,7.0,France",
        "4,A,NAN,NaN,2011-01-02 08:00:00,1.25,9.0,Spain",
        "4,A,NAN,NaN,2011-01-02 08:00:00,1.25,9.0,Spain",
        "5,A,TWO,1,2011-01-02 08:00:00,1.00,9.0,Spain",
        "5,A,CUSTOMERS,1,2011-01-02 08:00:00,2.00,10.0,",
        "6,A,ADJUSTED,-1,2011-01-02 08:00:00,0.5,,EIRE",
    ],
}


def test_dirty_lines_become_dead_letters_and_the_others_are_summed(tmp_path):
    for name, texts in DIRTY.items():
        ended = "\r\n" if name.endswith("02.csv") else "\n"
        (tmp_path / name).write_bytes(ended.join(texts).encode("latin-1"))
    result = demo("--input", str(tmp_path), "--kills", "0", "--workers", "1")
    assert failed(result) == []
    assert (result["lines"], result["exact_duplicate_lines"], result["unreadable_lines"]) == (16, 3, 6)
    assert (result["invoices"], result["cancelled_lines"], result["lines_without_customer"]) == (5, 1, 2)
    assert result["customers"] == 3
    assert Decimal(result["revenue_all_lines"]) == Decimal("17.501")
    assert Decimal(result["gross"]) == Decimal("15.501")
    assert Decimal(result["refunds"]) == Decimal("-3.0")
    assert Decimal(result["net"]) == Decimal("12.501")
    assert {name: Decimal(net) for name, net in result["net_by_customer"].items()} == {
        "7.0": Decimal("4.001"),
        "9.0": Decimal("1.00"),
        "10.0": Decimal("2.00"),
    }
    assert {name: Decimal(net) for name, net in result["net_by_country"].items()} == {
        "France": Decimal("4.001"),
        "Spain": Decimal("7.00"),
        "": Decimal("2.00"),
        "EIRE": Decimal("-0.5"),
    }
    assert len(result["dead_letters"]["billing"]) == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [0, 20])
def test_real_invoice_lines_are_summed_to_the_cent(shared_data: Callable[[str], Path], kills: int):
    folder = shared_data("online_retail_by_day")
    result = demo("--input", str(folder), "--kills", str(kills))
    assert failed(result) == []
    assert result["kills"] == kills
    texts = [path.read_text(encoding="utf-8").splitlines()[1:] for path in sorted(folder.glob("*.csv"))]
    rows = [row for lines in texts for row in csv.reader(lines)]
    unique = list(dict.fromkeys(map(tuple, rows)))
    assert result["lines"] == len(rows)
    assert result["exact_duplicate_lines"] == len(rows) - len(unique)
    assert result["invoices"] == len({row[0] for row in rows})
    assert result["cancelled_lines"] == sum(row[0].startswith("C") for row in rows)
    assert result["lines_without_customer"] == sum(not row[6] for row in rows)
    assert result["customers"] == len({row[6] for row in rows} - {""})
    assert Decimal(result["revenue_all_lines"]) == sum(Decimal(row[3]) * Decimal(row[5]) for row in rows)
    values = [Decimal(row[3]) * Decimal(row[5]) for row in unique]
    assert Decimal(result["gross"]) == sum(value for value in values if value >= 0)
    assert Decimal(result["refunds"]) == sum(value for value in values if value < 0)
    for name, column in (("net_by_customer", 6), ("net_by_country", 7)):
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for row, value in zip(unique, values, strict=True):
            sums[row[column]] += value
        if column == 6:
            assert Decimal(result["net_without_customer"]) == sums.pop("")
        assert {key: Decimal(net) for key, net in result[name].items()} == sums


def test_what_cannot_be_run_is_refused(tmp_path):
    assert "no .csv file" in demo("--input", str(tmp_path), code=2)
    (tmp_path / "there").touch()
    assert "not empty" in demo("--keep", str(tmp_path), code=2)


def test_a_seed_makes_the_same_orders(tmp_path):
    written = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        write_orders(tmp_path / name, 450, random.Random(seed))
        written.append([line.text for line in read_files(tmp_path / name)])
    assert written[0] == written[1] != written[2]
    direct = compute(tmp_path / "a")
    assert len(direct.invoice_numbers) == 450
    assert min(direct.exact_duplicate_lines, direct.unreadable_lines, direct.cancelled_lines) > 0


def test_the_two_readers_agree_on_what_is_a_number(tmp_path):
    texts = [
        "1",
        "-1",
        "+1.5",
        "1.",
        ".5",
        "",
        "--1",
        "-",
        "1e3",
        "NaN",
        "1_0",
        " 2 ",
        "1.23456",
        "1234567890",
        "\u0661",
    ]
    for text in texts:
        line = f"1,A,B,{text},2011-01-01,2,7.0,France"
        (tmp_path / "a.csv").write_text(f"{HEADER}\n{line}\n", encoding="utf-8")
        direct = compute(tmp_path)
        try:
            value: Decimal | None = read_line(line).value
        except UnreadableLine:
            value = None
        assert (value is None) == (direct.unreadable_lines == 1), text
        assert value is None or value == direct.revenue_all_lines, text


# The proof itself: planted faults must be found.


def invoice(number: int, customer: str = "7", gross: str = "5", refunds: str = "0") -> InvoiceIssued:
    return InvoiceIssued(f"i{number}", number, customer, "France", 1, Decimal(gross), Decimal(refunds))


def parcel(of: InvoiceIssued) -> ParcelPacked:
    return ParcelPacked(of.customer, of.invoice_no, of.number, of.country)


def refund(of: InvoiceIssued, before: str) -> RefundPaid:
    return RefundPaid(of.customer, of.invoice_no, of.number, of.country, -of.refunds, Decimal(before))


def whole() -> Stored:
    issued = [invoice(1), invoice(2, refunds="-2"), invoice(3, refunds="-3"), invoice(4, customer="8")]
    return Stored(
        lines=[LineRead(f"i{number}", "text", number, "a.csv", number + 1) for number in range(1, 5)],
        closings=4,
        invoices=issued,
        parcels=[parcel(each) for each in issued],
        payments=[refund(issued[1], "0"), refund(issued[2], "2")],
        counted=[LinesCounted(lines=4)],
    )


def findings(stored: Stored) -> list[str]:
    proof = Proof()
    outcomes = {
        "counting": {"duplicate": stored.repeated_lines},
        "billing": {"done": 8, "dead-lettered": 0, "duplicate": stored.repeated},
    }
    check_lines(proof, stored, Direct(lines=4), outcomes)
    check_effects(proof, stored)
    check_order(proof, stored)
    return [check.name for check in proof.checks if not check.ok]


def test_the_proof_finds_nothing_where_nothing_is_wrong():
    assert findings(whole()) == []


def lose_a_line(stored: Stored) -> None:
    stored.lines.pop()


def lose_a_parcel(stored: Stored) -> None:
    stored.parcels.pop(1)


def double_a_parcel(stored: Stored) -> None:
    stored.parcels.append(stored.parcels[3])


def double_an_invoice(stored: Stored) -> None:
    stored.invoices.append(stored.invoices[3])


def pay_too_much(stored: Stored) -> None:
    stored.payments[1] = refund(invoice(3, refunds="-4"), "2")


def swap_parcels(stored: Stored) -> None:
    stored.parcels[0], stored.parcels[1] = stored.parcels[1], stored.parcels[0]


def forget_an_earlier_refund(stored: Stored) -> None:
    stored.payments[1] = refund(stored.invoices[2], "0")


def count_a_line_late(stored: Stored) -> None:
    stored.counted.append(LinesCounted(out_of_order=1))


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (lose_a_line, "lines of the files on the log"),
        (lose_a_parcel, "a parcel for each invoice with goods"),
        (double_a_parcel, "no parcels doubled"),
        (double_an_invoice, "no invoices doubled"),
        (pay_too_much, "a refund for each invoice that asks for one"),
        (swap_parcels, "parcels in the order of the customer's invoices"),
        (forget_an_earlier_refund, "each refund knows all that were paid before it"),
        (count_a_line_late, "lines counted out of their invoice's order"),
    ],
)
def test_the_proof_finds_what_is_planted(plant: Callable[[Stored], None], name: str):
    stored = whole()
    plant(stored)
    assert name in findings(stored)


def test_the_proof_finds_wrong_sums():
    proof = Proof()
    add_figures(proof, whole())
    check_sums(proof, Direct(lines=5))
    assert "lines as computed directly" in [check.name for check in proof.checks if not check.ok]
    assert not proof.ok


def test_a_check_that_found_nothing_says_none() -> None:
    proof = Proof()
    proof.expect("own ends", {}, {})
    proof.expect("left", {"billing": 2}, {})
    proof.expect("late", 0, 0)
    assert [check.detail for check in proof.checks] == ["none", "found billing: 2, wanted none", "0"]
