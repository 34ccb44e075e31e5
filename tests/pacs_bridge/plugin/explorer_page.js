// The page of a series in Orthanc Explorer, and as much of jQuery as the plugin's script uses on it.
var page = {calls: [], alerts: [], timers: {}, events: {}, lastTimer: 0};

function Element(cls) {
  this.cls = cls;
  this.words = '';
  this.isShown = true;
  this.kept = {};
  this.children = [];
}

function Set(elements) {
  this.elements = elements;
}

Set.prototype = {
  each: function (change) {
    this.elements.forEach(change);
    return this;
  },
  text: function (words) { return this.each(function (one) { one.words = words; }); },
  toggle: function (isShown) { return this.each(function (one) { one.isShown = isShown; }); },
  show: function () { return this.toggle(true); },
  hide: function () { return this.toggle(false); },
  data: function (name, value) {
    if (value === undefined) {
      return this.elements[0].kept[name];
    }
    return this.each(function (one) { one.kept[name] = value; });
  },
  find: function (selector) {
    var cls = selector.replace(/^\./, '');
    var found = [];
    this.elements.forEach(function (one) {
      found = found.concat(one.children.filter(function (child) { return child.cls === cls; }));
    });
    return new Set(found);
  },
  not: function () { return this; },
  add: function (others) { return new Set(this.elements.concat(others.elements)); },
  append: function (others) {
    this.elements[0].children = this.elements[0].children.concat(others.elements);
    return this;
  },
  parent: function () { return this; },
  insertBefore: function () {
    page.box = this.elements[0];
    return this;
  },
  is: function () { return page.isOpen; },
  on: function (event, selector, handler) {
    page.events[event + ' ' + selector] = handler;
    return this;
  }
};

function $(what) {
  if (what === document || what === '#series-delete' || what === '#series') {
    return new Set([]);
  }
  if (what === '#pacs-bridge') {
    return new Set(page.box ? [page.box] : []);
  }
  var cls = /class="([\w-]+)"/.exec(what);
  var made = new Element(cls ? cls[1] : '');
  made.isShown = !/display: none/.test(what);
  return new Set([made]);
}

$.mobile = {};
$.ajax = function (call) { page.calls.push(call); };

var document = {};
var window = {
  setInterval: function (act) {
    page.timers[++page.lastTimer] = act;
    return page.lastTimer;
  },
  clearInterval: function (timer) { delete page.timers[timer]; }
};

function alert(words) { page.alerts.push(words); }

page.open = function (series) {
  $.mobile.pageData = {uuid: series};
  page.isOpen = true;
  if (!page.box) {
    page.events['pagebeforecreate #series']();
  }
  page.events['pageshow #series']();
};
page.close = function () {
  page.isOpen = false;
  page.events['pagehide #series']();
};
page.press = function () {
  page.events['click .pacs-bridge-action']({preventDefault: function () {}});
};
page.poll = function () {
  Object.keys(page.timers).forEach(function (timer) { page.timers[timer](); });
};
// The last call comes back.
page.answer = function (status, text) {
  var call = page.calls.pop();
  if (status === 200) {
    (call.success || function () {})(JSON.parse(text));
  } else {
    call.error({responseText: text});
  }
  (call.complete || function () {})();
};
page.call = function () {
  var call = page.calls[page.calls.length - 1];
  return call && {url: call.url, type: call.type || 'GET', count: page.calls.length};
};
page.shown = function () {
  var parts = {};
  page.box.children.forEach(function (one) { parts[one.cls] = one; });
  var button = parts['pacs-bridge-action'];
  return {
    is_shown: page.box.isShown,
    words: parts['pacs-bridge-state'].words,
    button: button.isShown ? button.words : null,
    alerts: page.alerts,
    timers: Object.keys(page.timers).length
  };
};
