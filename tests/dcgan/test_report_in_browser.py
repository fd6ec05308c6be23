"""The report in a browser: it opens, slider and curves answer, nothing is fetched, the console is silent.

Chromium without a window, driven by selenium. The paths of both programs are named, so that selenium looks
for nothing and loads nothing down.
"""

import json
import re
import shutil

import pytest
import reported

from dcgan.report.__main__ import main

pytestmark = pytest.mark.browser
STEPS = 20_000  # of the long run
SPIKE = 12_345  # where its loss is 100, and 1 everywhere else


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The addresses of two reports: a small run's with vital signs, and a long one's with losses alone."""
    small = tmp_path_factory.mktemp("browser") / "small"
    reported.train_small(small)
    reported.write_lines(small / "vitals.jsonl", [reported.vital_signs(step) for step in (1, 2, 3)])
    long = small.parent / "long"
    long.mkdir()
    shutil.copy(small / "config.json", long)
    losses = [{"step": s, "loss_d": 100.0 if s == SPIKE else 1.0} for s in range(1, STEPS + 1)]
    reported.write_lines(long / "metrics.jsonl", losses)
    assert main([str(small)]) == main([str(long)]) == 0
    return {run.name: (run / "report.html").as_uri() for run in (small, long)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-background-networking",
                     "window-size=1200,900", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, pages):
    """The browser with the small run's report, whose curves are drawn."""
    return open_page(browser, pages["small"])


def open_page(browser, address):
    browser.get_log("browser"), browser.get_log("performance")  # what came before is forgotten
    browser.get(address)
    until(browser, "return document.querySelectorAll('.chart > svg text').length > 0")
    return browser


def until(browser, script, seconds=60):
    """Wait until a script's value is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.02).until(lambda b: b.execute_script(script))


def find(place, selector):
    return place.find_elements("css selector", selector)


def chart(browser, title):
    (figure,) = (f for f in find(browser, ".chart") if find(f, "h3")[0].text == title)
    return figure


def steps_shown(figure):
    """The labels of the axis of steps, and the stretch in words."""
    return [text.text for text in find(figure, "text.x")], find(figure, ".range")[0].text


def in_sight(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def svg_of(browser, figure):
    return in_sight(browser, find(figure, ":scope > svg")[0])


def drag(browser, svg, begin, end):
    """Press at a share of the curve's width, move to another, and let go."""
    from selenium.webdriver import ActionChains

    width = svg.rect["width"]
    hand = ActionChains(browser, duration=20).move_to_element_with_offset(svg, int((begin - 0.5) * width), 0)
    hand.click_and_hold().move_by_offset(int((end - begin) * width), 0).release().perform()


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def fetched(browser):
    """Every address that the page asked for, but what stands in the page itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]


def test_it_opens_with_its_title_and_every_section(opened):
    assert opened.title == "quick, step 3: small"
    titles = [heading.text for heading in find(opened, "main > section > h2")]
    assert titles == [
        "Findings", "Samples over time", "Curves", "Real beside generated", "Evaluation",
        "Inside the networks", "The recipe", "One step", "Machine and versions", "Going on",
    ]  # fmt: skip
    charts = find(opened, ".chart")
    assert len(charts) == 3 + 6 + 2
    assert all(find(figure, "path.line") for figure in charts)
    broken = "return [...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).length"
    assert opened.execute_script(broken) == 0


def test_nothing_is_fetched_and_the_console_is_silent(opened, pages):
    drag(opened, svg_of(opened, chart(opened, "Losses")), 0.3, 0.7)
    in_sight(opened, find(opened, "#play")[0]).click()
    assert fetched(opened) == [pages["small"]]
    assert opened.get_log("browser") == []


def test_these_tests_would_notice_a_fetch_and_a_complaint(browser, pages, tmp_path):
    (tmp_path / "page.html").write_text(
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>"
    )
    browser.get_log("performance"), browser.get_log("browser")
    browser.get((tmp_path / "page.html").as_uri())
    assert "http://127.0.0.1:9/x.png" in fetched(browser)
    assert any("no" in entry["message"] for entry in browser.get_log("browser"))


def test_the_policy_stops_what_would_be_fetched_or_run(opened):
    opened.execute_async_script(
        "const done = arguments[0]; const i = new Image(); i.onload = i.onerror = done;"
        "i.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(i); const s = document.createElement('script');"
        "s.textContent = 'window.ran = 1'; document.body.append(s);"
    )
    assert opened.execute_script("return window.ran === undefined")
    refused = " ".join(entry["message"] for entry in opened.get_log("browser"))
    assert "img-src" in refused
    assert "script-src" in refused


def test_the_slider_moves_the_picture_and_the_label(opened):
    from selenium.webdriver.common.keys import Keys

    picture, slider, label = (find(opened, f"#frame{part}")[0] for part in ("-picture", "", "-label"))
    seen = {3: (picture.get_attribute("src"), label.text)}
    for step, key in ((2, Keys.ARROW_LEFT), (0, Keys.HOME), (1, Keys.ARROW_RIGHT)):
        slider.send_keys(key)
        seen[step] = picture.get_attribute("src"), label.text
    assert {step: text for step, (_, text) in seen.items()} == {
        s: f"step {s} ({s + 1} of 4)" for s in range(4)
    }
    assert len({src for src, _ in seen.values()}) == 4
    frames = opened.execute_script("return data.frames.map((frame) => frame.src)")
    assert [seen[step][0] for step in range(4)] == frames
    now = chart(opened, "Losses").find_element("css selector", "line.now")
    frame = chart(opened, "Losses").find_element("css selector", "rect.frame")
    assert float(now.get_attribute("x1")) == float(
        frame.get_attribute("x")
    )  # step 1 is where the axis begins


def test_the_button_plays_the_frames_to_the_end(opened):
    play, label = find(opened, "#play")[0], find(opened, "#frame-label")[0]
    play.click()
    assert (play.text, label.text) == ("Pause", "step 0 (1 of 4)")
    until(opened, "return document.getElementById('play').textContent === 'Play'")
    assert label.text == "step 3 (4 of 4)"


def test_a_drag_zooms_and_a_double_click_resets(browser, pages):
    from selenium.webdriver import ActionChains

    open_page(browser, pages["long"])
    figure = chart(browser, "Losses")
    svg, whole = svg_of(browser, figure), steps_shown(figure)
    assert whole == (["5,000", "10,000", "15,000", "20,000"], "steps 1 to 20,000")
    (reset,) = (b for b in find(figure, ".tools button"))
    assert not reset.is_enabled()
    drag(browser, svg, 0.5, 0.75)
    labels, words = steps_shown(figure)
    assert labels != whole[0]
    begin, end = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", words))
    assert 8_000 < begin < 10_500
    assert 13_000 < end < 16_000
    assert reset.is_enabled()
    ActionChains(browser).move_to_element_with_offset(svg, -100, 20).double_click().perform()
    assert steps_shown(figure) == whole
    drag(browser, svg, 0.75, 0.5)
    assert steps_shown(figure) == (labels, words)  # from right to left it is the same
    reset.click()
    assert steps_shown(figure) == whole


def test_a_spike_of_one_step_in_twenty_thousand_is_drawn_where_it_is(browser, pages):
    open_page(browser, pages["long"])
    figure = chart(browser, "Losses")
    d = find(figure, "path.line")[0].get_attribute("d")
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", d)[1:]]
    svg, frame = svg_of(browser, figure), figure.find_element("css selector", "rect.frame")
    x, width, y, height = (float(frame.get_attribute(name)) for name in ("x", "width", "y", "height"))
    assert len(points) < 4 * svg.rect["width"]
    top = min(points, key=lambda point: point[1])
    assert top[0] == pytest.approx(x + width * (SPIKE - 1) / (STEPS - 1), abs=0.11)
    assert top[1] == pytest.approx(y + height * 0.05 / 1.1, abs=0.11)  # a twentieth of room above and below
    others = [py for px, py in points if abs(px - top[0]) > 1]
    assert others == pytest.approx([y + height * 1.05 / 1.1] * len(others), abs=0.11)
    on_screen = [find(figure, selector)[0].rect for selector in ("path.line", "rect.frame")]
    line, box = ({"left": r["x"], "right": r["x"] + r["width"], "top": r["y"]} for r in on_screen)
    assert (line["left"], line["right"]) == pytest.approx((box["left"], box["right"]), abs=2)
    assert line["top"] - box["top"] == pytest.approx(height * 0.05 / 1.1, abs=2)


def test_a_share_has_an_axis_from_0_to_1_until_it_is_zoomed(opened):
    figure = chart(opened, "Dead units, generator")
    assert [text.text for text in find(figure, "text.y")] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    opened.execute_script("curves.find((c) => c.chart.title === 'Dead units, generator').zoom(1, 2)")
    zoomed = [float(text.text) for text in find(figure, "text.y")]
    assert 0.2 < min(zoomed) <= 0.25 <= max(zoomed) < 0.3  # the one line lies at 0.25


def test_keys_and_the_wheel_zoom_where_the_curve_has_the_focus(browser, pages):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages["long"])
    figure = chart(browser, "Losses")
    svg, whole = svg_of(browser, figure), steps_shown(figure)

    def turn_wheel():
        ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(svg), 0, -200).perform()

    turn_wheel()
    assert steps_shown(figure) == whole  # the page scrolls
    browser.execute_script("arguments[0].focus()", svg)
    svg_of(browser, figure)
    turn_wheel()
    until(browser, "return document.querySelector('.range').textContent !== 'steps 1 to 20,000'")
    wheeled = steps_shown(figure)[1]
    press(browser, "+")
    assert steps_shown(figure)[1] not in (whole[1], wheeled)
    nearer = steps_shown(figure)[1]
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert steps_shown(figure)[1] != nearer
    press(browser, Keys.ESCAPE)
    assert steps_shown(figure) == whole


def test_two_fingers_zoom_and_one_picks(browser, pages):
    open_page(browser, pages["long"])
    figure = chart(browser, "Losses")
    box, whole = svg_of(browser, figure).rect, steps_shown(figure)
    top = box["y"] - browser.execute_script("return scrollY") + 100

    def touch(kind, *shares):
        points = [{"x": box["x"] + share * box["width"], "y": top, "id": i} for i, share in enumerate(shares)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5, 0.6)
    touch("touchMove", 0.4, 0.8)
    touch("touchEnd")
    begin, end = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", steps_shown(figure)[1]))
    assert end - begin == pytest.approx(5_000, abs=20)  # 0.1 of the width became 0.4
    assert begin < (box["width"] * 0.5 - 58) / (box["width"] - 70) * 20_000 < end  # what was under a finger
    find(figure, ".tools button")[0].click()
    assert steps_shown(figure) == whole
    touch("touchStart", 0.3)
    touch("touchMove", 0.5)
    touch("touchEnd")
    assert steps_shown(figure) != whole


def test_hovering_shows_the_step_and_the_values(opened):
    from selenium.webdriver import ActionChains

    figure = chart(opened, "Gradient norms, generator")
    svg = svg_of(opened, figure)
    values = find(figure, ".values")[0]
    assert not values.is_displayed()
    ActionChains(opened).move_to_element_with_offset(
        svg, 25, 0
    ).perform()  # the middle of the axis, which is step 2
    assert values.text.split("\n") == ["step 2", "0 Dense", "0.25"]


def test_means_are_those_of_the_points_around(opened):
    script = "return Array.from(means(Float64Array.from(arguments[0]), arguments[1]), String)"
    numbers = [1, 5, 3, "NaN", 7]
    assert opened.execute_script(script, numbers, 3) == ["3", "3", "4", "5", "7"]
    figure = chart(opened, "Losses")
    assert len(find(figure, "path.faint")) == 0
    opened.execute_script(
        "const s = document.getElementById('smoothing'); s.value = '5'; s.dispatchEvent(new Event('change'))"
    )
    assert len(find(figure, "path.faint")) == len(find(figure, "path.line")) == 2
    assert len(find(chart(opened, "Spread"), "path.faint")) == 0  # measured now and then: nothing to smooth


def test_names_hide_lines_and_curves_zoom_together(opened):
    figure = chart(opened, "D(x) and D(G(z))")
    svg_of(opened, figure)
    button = find(figure, ".legend button")[1]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(find(figure, "path.line")) == 2
    button.click()
    assert len(find(figure, "path.line")) == 3
    log = find(chart(opened, "Losses"), ".tools input")[0]
    before = [text.text for text in find(chart(opened, "Losses"), "text.y")]
    log.click()
    assert [text.text for text in find(chart(opened, "Losses"), "text.y")] != before
    opened.execute_script("curves[0].zoom(2, 3)")
    assert [words.text for words in find(opened, ".range")] == ["steps 2 to 3", *["steps 1 to 3"] * 10]
    find(opened, "#together")[0].click()
    opened.execute_script("curves[0].zoom(1, 2)")
    assert [words.text for words in find(opened, ".range")] == ["steps 1 to 2"] * 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_readers_system(opened, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    style = "return getComputedStyle(document.body)[arguments[0]].match(/\\d+/g).map(Number)"
    ground, ink = (sum(opened.execute_script(style, name)[:3]) for name in ("backgroundColor", "color"))
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (ground > 600 and ink < 150) if scheme == "light" else (ground < 150 and ink > 600)


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened.refresh()
        until(opened, "return document.querySelectorAll('.chart > svg text').length > 0")
        wide = opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        curve = find(chart(opened, "Losses"), ":scope > svg")[0].rect["width"]
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide == [390, 390]
    assert 300 < curve <= 390
