"""The interface's own page, in a network that has nothing but the service."""

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage


def test_api_leads_to_a_form_that_sends_requests(visit: OpenPage) -> None:
    page = visit()
    page.get_by_role("link", name="API").click()
    expect(page.locator(".opblock-summary-path")).to_contain_text(["/v1/segment"])
    page.locator("#operations-operation-livez .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("200")
