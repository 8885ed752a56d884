from service.logs import place_of


def test_an_errors_place_is_told_but_not_its_message() -> None:
    try:
        float("a customer's secret")
    except ValueError as error:
        place = place_of(error)
    assert "secret" not in place
    assert place.endswith("test_an_errors_place_is_told_but_not_its_message > ValueError")
