// PACS Bridge in Orthanc Explorer: where the segmentation of a series stands, and what can be done.
(function () {
  'use strict';

  var ROOT = '../pacs-bridge/series/';
  var POLL_MS = 3000;
  // State of the bridge -> what the button does; "start" has the series sent to it (again).
  var ACTIONS = {
    incomplete: ['force', 'Go on without what is missing'],
    dead: ['retry', 'Try again'],
    skipped: ['retry', 'Try again'],
    retry: ['retry', 'Try again at once'],
    sent: ['repeat', 'Send the result again'],
    committed: ['repeat', 'Send the result again']
  };
  var timer = null;

  function words(facts) {
    var transfer = facts.transfer;
    var bridge = facts.bridge;
    var there = bridge.state ? '; there: ' + bridge.state : '';
    if (bridge.state === 'incomplete') {
      there += ' (' + bridge.detail + ')';
    }
    if (transfer && transfer.stage !== 'failed') {
      return 'on its way to the bridge: ' + transfer.stage +
        (transfer.reason ? ' (' + transfer.reason + ', attempt ' + (transfer.attempts + 1) + ')' : '') +
        there;
    }
    if (transfer) {
      return 'not sent: ' + transfer.reason + there;
    }
    if (bridge.state) {
      return bridge.state + ', revision ' + bridge.revision +
        (bridge.reason ? ' (' + bridge.reason + (bridge.detail ? ': ' + bridge.detail : '') + ')' : '');
    }
    return bridge.reason === 'unknown-series' ? 'not segmented' : bridge.reason;
  }

  function action(facts) {
    if (facts.bridge.state === 'incomplete' && !(facts.transfer && facts.transfer.stage === 'sending')) {
      return ACTIONS.incomplete;
    }
    if (facts.transfer && facts.transfer.stage !== 'failed') {
      return null;
    }
    if (!facts.transfer && facts.bridge.state) {
      var latest = facts.bridge.revisions[facts.bridge.revisions.length - 1];
      if (latest.job_id === null && /^(dead|skipped)$/.test(facts.bridge.state)) {
        return ['force', 'Look at it again, as it is'];
      }
      return ACTIONS[facts.bridge.state] || null;
    }
    return ['start', 'Segment this series'];
  }

  function show(box, facts) {
    var todo = action(facts);
    box.find('.pacs-bridge-state').text('Segmentation: ' + words(facts));
    box.data('action', todo ? todo[0] : '');
    box.find('.pacs-bridge-action').toggle(todo !== null);
    if (todo) {
      box.find('.pacs-bridge-action .ui-btn-text').add(
        box.find('.pacs-bridge-action').not(':has(.ui-btn-text)')).text(todo[1]);
    }
    box.show();
  }

  function said(request) {
    try {
      var answer = JSON.parse(request.responseText);
      return answer.reason + (answer.detail ? ': ' + answer.detail : '');
    } catch (error) {
      return 'no answer';
    }
  }

  function refresh() {
    var box = $('#pacs-bridge');
    var series = $.mobile.pageData && $.mobile.pageData.uuid;
    function isLeft() { // for another series, perhaps of another patient
      return !$('#series').is(':visible') || $.mobile.pageData.uuid !== series;
    }
    if (!series || isLeft()) {
      return;
    }
    $.ajax({
      url: ROOT + series,
      dataType: 'json',
      cache: false,
      success: function (facts) {
        if (isLeft()) {
          return;
        }
        if (facts.is_ct) {
          show(box, facts);
        } else {
          box.hide();
        }
      },
      error: function (request) {
        if (isLeft()) {
          return;
        }
        box.find('.pacs-bridge-state').text('Segmentation: ' + said(request));
        box.find('.pacs-bridge-action').hide();
        box.show();
      }
    });
  }

  function act(event) {
    var box = $('#pacs-bridge');
    event.preventDefault();
    if (!box.data('action')) {
      return;
    }
    $.ajax({
      url: ROOT + $.mobile.pageData.uuid + '/' + box.data('action'),
      type: 'POST',
      dataType: 'json',
      data: '',
      complete: refresh,
      error: function (request) {
        alert('PACS Bridge: ' + said(request));
      }
    });
  }

  $(document).on('pagebeforecreate', '#series', function () {
    var box = $('<div id="pacs-bridge" style="display: none">');
    box.append($('<p class="pacs-bridge-state">'));
    box.append($('<a class="pacs-bridge-action" href="#" data-role="button" data-icon="gear" data-theme="e">')
      .text('Segment this series'));
    box.insertBefore($('#series-delete').parent().parent());
    box.on('click', '.pacs-bridge-action', act);
  });

  $(document).on('pageshow', '#series', function () {
    refresh();
    window.clearInterval(timer);
    timer = window.setInterval(refresh, POLL_MS);
  });

  $(document).on('pagehide', '#series', function () {
    window.clearInterval(timer);
    $('#pacs-bridge').hide();
  });
}());
