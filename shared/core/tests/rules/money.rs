//! Prices and amounts, exact.

use farebox_core::money::{Currency, CurrencyError, DecimalError, MONEY_MAX, Money, UnitAmount};

#[test]
fn a_unit_price_is_exact_in_stripes_spelling() {
    let price = UnitAmount::from_decimal("0.002", Currency::USD).expect("well formed");
    assert_eq!(price.pico, 200_000_000_000);
    assert_eq!(price.to_string(), "0.2");
    assert_eq!("0.2".parse(), Ok(price));
    assert_eq!(price.display(Currency::USD), "$0.002");
    assert_eq!(UnitAmount { pico: 1 }.to_string(), "0.000000000001");
    assert_eq!("0.000000000001".parse(), Ok(UnitAmount { pico: 1 }));
    assert_eq!("0.0000000000010".parse(), Ok(UnitAmount { pico: 1 }));
    assert_eq!("0.0000000000001".parse::<UnitAmount>(), Err(DecimalError::TooFine));
    assert_eq!("18446744.073709551615".parse(), Ok(UnitAmount { pico: u64::MAX }));
    assert_eq!(
        "18446744.073709551616".parse::<UnitAmount>(),
        Err(DecimalError::TooLarge)
    );
    for bad in [
        "", ".", "1.", ".5", "1e3", "+1", "0x10", "1,00", "1,0000", "_1", "1_", "1__0", "1,_000", "٣", " 1",
    ] {
        assert_eq!(bad.parse::<UnitAmount>(), Err(DecimalError::NotANumber), "{bad:?}");
    }
    assert_eq!("-1".parse::<UnitAmount>(), Err(DecimalError::Negative));
}

#[test]
fn money_is_shown_with_the_places_of_its_currency() {
    let jpy: Currency = "JPY".parse().expect("well formed");
    let cad: Currency = "cad".parse().expect("well formed");
    assert_eq!(Money(4900).display(Currency::USD), "$49.00");
    assert_eq!(Money(5).display(Currency::USD), "$0.05");
    assert_eq!(Money(500).display(jpy), "¥500");
    assert_eq!(Money(4950).display(cad), "49.50 CAD");
    assert_eq!(Money::from_decimal("1,234.5", Currency::USD), Ok(Money(123_450)));
    assert_eq!(Money::from_decimal("0.001", Currency::USD), Err(DecimalError::TooFine));
    assert_eq!(Money::from_decimal("0.5", jpy), Err(DecimalError::TooFine));
    assert_eq!(
        UnitAmount::from_decimal("0.5", jpy).expect("well formed").to_string(),
        "0.5"
    );
    assert_eq!("kwd".parse::<Currency>(), Err(CurrencyError::Uneven));
    assert_eq!("uds".parse::<Currency>(), Err(CurrencyError::Unknown));
    assert_eq!("d d".parse::<Currency>(), Err(CurrencyError::Unknown));
}

#[test]
fn a_line_is_rounded_half_up_once() {
    // Stripe's own example: 0.05 cents times 30 is 1.5 cents, which rounds up to 2.
    let price: UnitAmount = "0.05".parse().expect("well formed");
    assert_eq!(price.times(30), Some(Money(2)));
    assert_eq!(price.times(29), Some(Money(1)));
    assert_eq!(UnitAmount { pico: u64::MAX }.times(u64::MAX), None);
}

fn currency(code: &str) -> Currency {
    code.parse().expect(code)
}

#[test]
fn a_sign_is_read_wherever_people_write_it_and_shown_where_nobody_mistakes_it() {
    for (code, sign, shown) in [
        ("usd", '$', "$1.50"),
        ("cad", '$', "1.50 CAD"),
        ("eur", '€', "€1.50"),
        ("gbp", '£', "£1.50"),
        ("cny", '¥', "1.50 CNY"),
        ("jpy", '¥', "¥150"),
    ] {
        let currency = currency(code);
        for other in ['$', '€', '£', '¥', '₹', 'x'] {
            assert_eq!(currency.has_symbol(other), other == sign, "{other} for {code}");
        }
        assert_eq!(Money(150).display(currency), shown);
        assert_eq!(currency.to_string(), code);
    }
    assert!(!currency("chf").has_symbol('$'));
}

#[test]
fn a_currency_is_stored_by_its_code() {
    let stored = serde_json::to_string(&currency("EUR")).expect("JSON");
    assert_eq!(stored, "\"eur\"");
    assert_eq!(
        serde_json::from_str::<Currency>(&stored).expect("a currency"),
        currency("eur")
    );
    let unknown = serde_json::from_str::<Currency>("\"eux\"").expect_err("no currency");
    assert!(unknown.to_string().contains("ISO code"), "{unknown}");
    assert_eq!(Currency::default(), Currency::USD);
}

#[test]
fn an_amount_is_taken_up_to_the_largest_and_no_sum_wraps_around() {
    assert_eq!(Money::from_decimal("9999999999.99", Currency::USD), Ok(MONEY_MAX));
    assert_eq!(
        Money::from_decimal("10000000000.00", Currency::USD),
        Err(DecimalError::TooLarge)
    );
    assert_eq!(Money(1).checked_add(Money(2)), Some(Money(3)));
    assert_eq!(Money(u64::MAX).checked_add(Money(1)), None);
}
