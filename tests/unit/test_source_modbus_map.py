"""Register maps as CSV files: what vendors and spreadsheets write, and what is wrong with it, where."""

from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import ValidationError

from dxad import config
from dxad.errors import ConfigError
from dxad.sources.modbus import Config, ModbusChannel

EXAMPLE = Path(__file__).parents[2] / "config/examples/energy_meter.csv"


def mapped(tmp_path: Path, text: str, **channels: dict[str, object]) -> dict[str, ModbusChannel]:
    path = tmp_path / "map.csv"
    path.write_text(dedent(text))
    document = {"type": "modbus", "url": "tcp://h:1", "map": str(path), "channels": channels}
    return Config.model_validate(document).channels


def channel(register: str, **settings: object) -> ModbusChannel:
    return ModbusChannel.model_validate({"register": register, **settings})


def test_the_example_is_a_map():
    document = {"type": "modbus", "url": "tcp://h:1", "map": str(EXAMPLE)}
    found = Config.model_validate(document).channels
    assert found["voltage_l1"] == channel(
        "30001", encoding="float32", order="CDAB", unit="V", range=[0.0, 500.0]
    )
    assert (found["power"].first, found["power"].kind) == (0x34, "int32")
    assert found["frequency"].absent == [65_535.0]
    assert (found["alarm"].kind, found["tariff"].place.width) == ("bits", 3)
    assert found["breaker_closed"].kind == "bool"


def test_a_spreadsheets_semicolons_and_commas_and_a_vendors_words(tmp_path):
    found = mapped(
        tmp_path,
        """\
        \ufeffTag Name;Function;Address;Data Type;Byte Order;Factor;Unit;Comment
        Strom L1;FC4;0x10;REAL;word swap;0,1;A;"of the meter; L1"
        Zustand;holding register;7;WORD;;;;
        Pumpe;1;12;BOOL;;;;
        Bit;03;5.3;;;;;
        """,
    )
    assert found == {
        "Strom_L1": channel("input:0x10", encoding="float32", order="CDAB", scale=0.1, unit="A"),
        "Zustand": channel("holding:7", encoding="uint16"),
        "Pumpe": channel("coil:12", encoding="bool"),
        "Bit": channel("holding:5.3"),
    }


def test_what_stands_in_the_configuration_goes_before_it(tmp_path):
    text = "name,register,scale,unit\na,30001,0.1,V\nb,30002,0.1,A\n"
    found = mapped(tmp_path, text, b={"unit": "mA", "scale": 100.0}, c={"register": "coil:3"})
    assert list(found) == ["a", "b", "c"]
    assert found["b"] == channel("30002", scale=100.0, unit="mA")


def test_texts_bits_and_numbers_that_are_none(tmp_path):
    found = mapped(
        tmp_path,
        "name\tregister\tencoding\tlength\tvalues\tbit\twidth\tabsent\n"
        "state\t40001\tstring\t4\tRUN=1 STOP=0\t\t\t\n"
        "flag\t40009\t\t\t\t3\t2\t\n"
        "temperature\t40010\tint16\t\t\t\t\t0x8000 0x7fff\n",
    )
    assert found["state"].values == {"RUN": 1.0, "STOP": 0.0}
    assert (found["flag"].kind, found["flag"].place.bit, found["flag"].place.width) == ("bits", 3, 2)
    assert found["temperature"].absent == [32_768.0, 32_767.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,register\na,99999\n", "map.csv:2:2: '99999' is no register: write holding:12"),
        ("name,register\n\n# x\na,12\n", "map.csv:4:2: 12 does not say in which table: write 40012"),
        ("name,table,address\na,coils,70000\n", "map.csv:2:3: coil:70000: addresses are 0 to 65535"),
        ("name,table,address\na,relay,7\n", "map.csv:2:2: 'relay' is none of coil"),
        ("name,table,address\na,coil,x\n", "map.csv:2:3: 'x' is no address"),
        ("name,table,address\na,,7\n", "map.csv:2:3: a row needs a register, or an address and a table"),
        ("name,register,encoding\na,30001,int17\n", "map.csv:2:3: Input should be 'bool'"),
        ("name,register,order\na,30001,ABDC\n", "map.csv:2:3: Input should be 'ABCD'"),
        ("name,register,scale\na,30001,0\n", "map.csv:2:3: a scale of 0"),
        ("name,register,scale\na,30001,1.2.3\n", "map.csv:2:3: '1.2.3' is no number"),
        ("name,register,low,high\na,30001,5,1\n", "map.csv:2:3: 5 is not below 1"),
        ("name,register,low,high\na,30001,5,\n", "map.csv:2:3: low and high belong together"),
        ("name,register\na,30001\na,30002\n", "map.csv:3:1: 'a' stands in line 2, too"),
        ("name,register\n,30001\n", "map.csv:2:1: '' is no name of a channel"),
        ("name,unit\na,V\n", "map.csv:1:1: no column register, or address and table; there are: name, unit"),
        ("name,register,Reg\n", "map.csv:1:3: 'Reg' is a second column of register"),
        ("name,register,bit\na,30001,x\n", "map.csv:2:3: 'x' is no whole number"),
        ("name,register,values\na,30001,RUN\n", "map.csv:2:3: 'RUN' is not RUN=1 STOP=0"),
        ("", "map.csv: has no channels"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_column(tmp_path, text, told):
    with pytest.raises(ValidationError) as refused:
        mapped(tmp_path, text)
    (error,) = refused.value.errors()
    assert error["loc"] == ("map",)
    assert told in error["msg"]


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ValidationError) as refused:
        mapped(tmp_path, "name,register\na,1\nb,30001\nc,2\n")
    assert [each["msg"].split(":")[1] for each in refused.value.errors()] == ["2", "4"]


def test_it_is_looked_for_beside_the_configuration_and_a_missing_one_is_told(tmp_path):
    (tmp_path / "dxad.toml").write_text('[sources.a]\ntype = "modbus"\nurl = "tcp://h:1"\nmap = "map.csv"\n')
    with pytest.raises(
        ConfigError, match=r"dxad.toml:4: sources.a.map: .*map.csv: No such file or directory"
    ):
        config.load(tmp_path / "dxad.toml")
    (tmp_path / "map.csv").write_text("name,register\na,30001\n")
    with pytest.raises(ConfigError) as refused:
        config.load(tmp_path / "dxad.toml")
    assert "sources.a.map" not in str(refused.value)
